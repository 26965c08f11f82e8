//! What a device spends its time on: LibTorch's operations and this crate's functions, one after the other, with the
//! times of a CUDA device's stream or, on a CPU, of its clock.

use super::{BridgeError, cuda, sys};
use cudarc::driver::{result::event, sys as driver};
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::Device;

/// A stretch of time, seconds since the recording began.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The phase, or that in which the operation ran.
    pub phase: &'static str,
    /// `None` for the phase as a whole.
    pub operation: Option<String>,
    pub start_s: f64,
    pub end_s: f64,
}

#[derive(Clone, Copy)]
enum Stamp {
    Clock(Instant),
    Event(driver::CUevent),
}

// SAFETY: an event is a handle that any thread of the process may use.
unsafe impl Send for Stamp {}

impl Stamp {
    fn now(device: Device) -> Result<Self, BridgeError> {
        let Device::Cuda(ordinal) = device else { return Ok(Self::Clock(Instant::now())) };
        let refuse = |e| BridgeError(format!("profile: {e}"));
        let event = event::create(driver::CUevent_flags::CU_EVENT_DEFAULT).map_err(refuse)?;
        let stream = cuda::current_stream(ordinal)?;
        // SAFETY: a new event and a live stream of the current context.
        unsafe { event::record(event, stream.cast()) }.map_err(refuse)?;
        Ok(Self::Event(event))
    }

    /// Seconds from one to the other; both have happened.
    fn until(self, later: Self) -> Result<f64, BridgeError> {
        match (self, later) {
            (Self::Clock(from), Self::Clock(to)) => Ok((to - from).as_secs_f64()),
            (Self::Event(from), Self::Event(to)) => {
                // SAFETY: recorded events.
                let ms = unsafe { event::elapsed(from, to) }.map_err(|e| BridgeError(format!("profile: {e}")))?;
                Ok(f64::from(ms) / 1e3)
            }
            _ => unreachable!("a recording has one clock"),
        }
    }
}

enum What {
    PhaseBegins(&'static str),
    OperationBegins(String),
    Ends,
}

struct Recorder {
    device: Device,
    marks: Vec<(What, Stamp)>,
    /// The first thing that went wrong.
    error: Option<BridgeError>,
}

/// LibTorch calls back without a context of ours.
static RECORDER: Mutex<Option<Recorder>> = Mutex::new(None);
/// Whether there is one, at the price of a load.
static ACTIVE: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Operations that are open in this thread: only the outermost counts.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

fn with_recorder(body: impl FnOnce(&mut Recorder)) {
    if let Some(recorder) = RECORDER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).as_mut() {
        body(recorder);
    }
}

fn push(what: What) {
    with_recorder(|recorder| match Stamp::now(recorder.device) {
        Ok(stamp) => recorder.marks.push((what, stamp)),
        Err(error) => {
            recorder.error.get_or_insert(error);
        }
    });
}

fn operation_begins(name: &str) {
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    if depth == 0 {
        // How the engine announces a node of the backward pass.
        push(What::OperationBegins(name.trim_start_matches("autograd::engine::evaluate_function: ").to_owned()));
    }
}

fn operation_ends() {
    let depth = DEPTH.get().saturating_sub(1);
    DEPTH.set(depth);
    if depth == 0 {
        push(What::Ends);
    }
}

unsafe extern "C" fn mark(name: *const c_char) {
    if name.is_null() {
        return operation_ends();
    }
    // SAFETY: LibTorch's names end with NUL and live for the call.
    operation_begins(&unsafe { CStr::from_ptr(name) }.to_string_lossy());
}

/// Ends with it what it began.
#[must_use]
pub struct Scope {
    operation: bool,
}

impl Drop for Scope {
    fn drop(&mut self) {
        match self.operation {
            true => operation_ends(),
            false => push(What::Ends),
        }
    }
}

/// A phase of a step, from now to the end of the scope; nothing where nobody records.
pub fn phase(name: &'static str) -> Option<Scope> {
    ACTIVE.load(Ordering::Relaxed).then(|| {
        push(What::PhaseBegins(name));
        Scope { operation: false }
    })
}

/// A function of this crate. Where it runs inside a node of the backward pass, that node is named after it.
pub fn operation(name: &'static str) -> Option<Scope> {
    ACTIVE.load(Ordering::Relaxed).then(|| {
        if DEPTH.get() > 0 {
            with_recorder(|recorder| {
                if let Some((What::OperationBegins(open), _)) = recorder.marks.last_mut() {
                    name.clone_into(open);
                }
            });
        }
        operation_begins(name);
        Scope { operation: true }
    })
}

/// A recording under way; there is one at a time.
pub struct Recording(());

impl Recording {
    /// Listens to LibTorch from now on. Work must run on one stream of the device, or in one thread of a CPU.
    pub fn start(device: Device) -> Result<Self, BridgeError> {
        *RECORDER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
            Some(Recorder { device, marks: Vec::new(), error: None });
        let error = sys::ErrorSlot::new();
        // SAFETY: `mark` may be called from any thread until the listener is removed in Drop.
        error.check(unsafe { sys::lf_profile_start(mark, error.0) })?;
        ACTIVE.store(true, Ordering::Relaxed);
        Ok(Self(()))
    }

    /// Stops and waits for the device.
    pub fn finish(self) -> Result<Vec<Span>, BridgeError> {
        drop(self);
        let recorder = RECORDER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let Some(Recorder { device, marks, error }) = recorder else { return Ok(Vec::new()) };
        if let Some(error) = error {
            return Err(error);
        }
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
        spans(marks)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        ACTIVE.store(false, Ordering::Relaxed);
        let error = sys::ErrorSlot::new();
        // SAFETY: removes what `start` added.
        let _ = unsafe { sys::lf_profile_stop(error.0) };
    }
}

fn spans(marks: Vec<(What, Stamp)>) -> Result<Vec<Span>, BridgeError> {
    let Some(&(_, first)) = marks.first() else { return Ok(Vec::new()) };
    let mut out: Vec<Span> = Vec::new();
    // Phases and operations that are open, as places in `out`.
    let mut open: Vec<usize> = Vec::new();
    for (what, stamp) in marks {
        let at = first.until(stamp)?;
        let phase = open.first().map_or("", |&place| out[place].phase);
        let (phase, operation) = match what {
            What::PhaseBegins(name) => (name, None),
            What::OperationBegins(name) => (phase, Some(name)),
            What::Ends => {
                if let Some(place) = open.pop() {
                    out[place].end_s = at;
                }
                continue;
            }
        };
        open.push(out.len());
        out.push(Span { phase, operation, start_s: at, end_s: at });
    }
    Ok(out)
}
