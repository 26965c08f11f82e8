//! The integration tests, one binary.

mod analysis;
mod analysis_cli;
mod bench;
mod curves_cli;
mod data;
mod exchange;
mod fit_edges;
mod fuzz_tables;
mod import_torch;
mod layering;
mod learning_curve;
mod scaling;
mod studies_cli;
mod sweep;
mod sweep_run;

#[cfg(feature = "torch")]
mod torch;

/// The program in a folder, on a machine without a GPU.
fn program(folder: &std::path::Path, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("lossfloor"));
    command.current_dir(folder).env("CUDA_VISIBLE_DEVICES", "").args(arguments);
    command
}

/// What a process has said.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The program where no file can grow beyond `blocks` of 512 bytes: writes fail as on a full disk, for any user.
fn cramped(blocks: u32) -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    command.arg("-c").arg(script).arg(assert_cmd::cargo::cargo_bin("lossfloor"));
    command
}
