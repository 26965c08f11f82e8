//! [`Owner`]: a process, named so that another one can tell whether it is still there. A process id alone is given to
//! somebody else sooner or later, and a sign of life may be late; neither decides here.

use crate::slurm::Queue;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A process that works on a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name of the machine, for people.
    pub host: String,
    /// The machine since it was last started.
    pub boot_id: String,
    /// What its process ids count in: that of a container differs from the machine's.
    pub pid_namespace: String,
    /// Process id.
    pub pid: u32,
    /// Whose it is, by number.
    #[serde(default)]
    pub user: u32,
    /// When the process started, in ticks since the boot: tells it from a later one with the same id.
    pub started: u64,
    /// The Slurm job that it belongs to, `1234` or `1234_7`, and how often that was restarted before.
    pub job: Option<(String, u32)>,
    /// Different for each lock.
    pub token: String,
}

/// What became of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there.
    Alive,
    /// It is not, for certain.
    Gone,
    /// It is on a machine that cannot be asked from here.
    Unknown,
}

/// Looks after owners from this process. What Slurm says is asked for again after a while.
#[derive(Debug)]
pub struct Observer {
    host: String,
    boot_id: String,
    pid_namespace: String,
    job: Option<(String, u32)>,
    user: u32,
    queue: RefCell<Option<(Instant, Option<Rc<Queue>>)>>,
}

/// How long an answer of `squeue` is good for.
const QUEUE_AGE: Duration = Duration::from_secs(20);

/// Process ids of a machine outside of all containers count in this one.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

impl Observer {
    /// `job` is the Slurm job of this process and how often it was restarted.
    pub fn new(job: Option<(String, u32)>) -> Self {
        let line = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid");
        Self {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            pid_namespace: namespace.map(|path| path.display().to_string()).unwrap_or_default(),
            job,
            user: rustix::process::getuid().as_raw(),
            queue: RefCell::new(None),
        }
    }

    /// This process as an owner.
    pub fn this_process(&self) -> Owner {
        let pid = std::process::id();
        let started = start_of(pid).unwrap_or(0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos());
        Owner {
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            pid_namespace: self.pid_namespace.clone(),
            pid,
            user: self.user,
            started,
            job: self.job.clone(),
            token: format!("{}-{pid}-{started}-{now:x}", self.host),
        }
    }

    /// Whether an owner's process is one that this machine can look at.
    pub fn is_here(&self, owner: &Owner) -> bool {
        owner.boot_id == self.boot_id && owner.pid_namespace == self.pid_namespace
    }

    /// Whether `owner` still works.
    pub fn fate(&self, owner: &Owner) -> Fate {
        if self.is_here(owner) {
            // A zombie does nothing any more.
            return if start_of(owner.pid) == Some(owner.started) { Fate::Alive } else { Fate::Gone };
        }
        if let Some((job, restarts)) = &owner.job {
            if let Some((own, own_restarts)) = &self.job
                && own == job
            {
                // A job runs once at a time: this process is its latest start.
                return if own_restarts > restarts { Fate::Gone } else { Fate::Unknown };
            }
            if owner.user != self.user {
                // The queue that is asked for holds this user's jobs alone.
                return Fate::Unknown;
            }
            return match self.queue() {
                Some(queue) => match queue.get(job) {
                    Some(job) if job.is_running() => Fate::Alive,
                    Some(job) if job.is_waiting() => Fate::Gone,
                    Some(_) => Fate::Unknown,
                    None => Fate::Gone,
                },
                None => Fate::Unknown,
            };
        }
        let whole_machine = owner.pid_namespace == FIRST_PID_NAMESPACE && self.pid_namespace == FIRST_PID_NAMESPACE;
        if whole_machine && owner.host == self.host {
            // This machine, before it was started again.
            return Fate::Gone;
        }
        Fate::Unknown
    }

    /// Slurm's jobs of this user, as of a short while ago; none where Slurm does not answer.
    pub fn queue(&self) -> Option<Rc<Queue>> {
        let mut known = self.queue.borrow_mut();
        if known.as_ref().is_none_or(|(at, _)| at.elapsed() > QUEUE_AGE) {
            *known = Some((Instant::now(), Queue::read().ok().map(Rc::new)));
        }
        known.as_ref().and_then(|(_, queue)| queue.clone())
    }

    /// As [`Self::fate`], from what Slurm says now: an older answer does not know of jobs that have started since.
    pub fn fate_now(&self, owner: &Owner) -> Fate {
        *self.queue.borrow_mut() = None;
        self.fate(owner)
    }
}

/// When process `pid` started, in ticks since the boot; none where there is no such process, or only what is left of it.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; what follows is numbers from the third field on.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let state = *fields.first()?;
    let start = fields.get(19)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_others_with_its_id() {
        let here = Observer::new(None);
        let own = here.this_process();
        assert_eq!(here.fate(&own), Fate::Alive);
        assert_eq!(here.fate(&Owner { started: own.started + 1, ..own.clone() }), Fate::Gone);
        let mut child = std::process::Command::new("true").spawn().expect("starts");
        let pid = child.id();
        let started = start_of(pid).unwrap_or(0);
        // A zombie until it is waited for.
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(here.fate(&Owner { pid, started, ..own.clone() }), Fate::Gone);
        child.wait().expect("waited for");
        let elsewhere = Owner { boot_id: "another".to_owned(), host: "another".to_owned(), ..own.clone() };
        assert_eq!(here.fate(&elsewhere), Fate::Unknown);
    }

    #[test]
    fn a_restarted_job_knows_that_its_former_self_is_gone() {
        let job = |restarts| Some(("17".to_owned(), restarts));
        let former = Owner { boot_id: "node1".to_owned(), job: job(0), ..Observer::new(None).this_process() };
        assert_eq!(Observer::new(job(1)).fate(&former), Fate::Gone);
        assert_eq!(Observer::new(job(0)).fate(&former), Fate::Unknown);
    }
}
