//! Which of the waiting runs goes next: the first in order that fits, without putting off the first that does not.
//!
//! That one gets a reservation at the time by which enough will be free; runs behind it may pass while they are over by
//! then, or leave enough room (EASY backfilling, Lifka 1995). Pure: the scheduler and the simulation of a plan share it.

/// What a run takes of a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Places on GPUs, each on another GPU.
    pub gpus: usize,
    /// Cores, for a run without a GPU.
    pub cores: usize,
}

impl Need {
    fn fits(self, free: Self) -> bool {
        self.gpus <= free.gpus && self.cores <= free.cores
    }

    fn plus(self, other: Self) -> Self {
        Self { gpus: self.gpus + other.gpus, cores: self.cores + other.cores }
    }

    fn minus(self, other: Self) -> Self {
        Self { gpus: self.gpus.saturating_sub(other.gpus), cores: self.cores.saturating_sub(other.cores) }
    }
}

/// A run as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// What it takes.
    pub need: Need,
    /// Estimated seconds that are left of it.
    pub seconds: f64,
}

/// The position in `waiting`, which is in order of preference, of the run to start now, if any. A run that wants more than
/// the `whole` machine takes all of it.
pub fn choose(waiting: &[Candidate], running: &[Candidate], whole: Need) -> Option<usize> {
    let capped =
        |need: Need| Need { gpus: need.gpus.min(whole.gpus.max(1)), cores: need.cores.min(whole.cores.max(1)) };
    let free = running.iter().fold(whole, |free, run| free.minus(capped(run.need)));
    let mut reserved: Option<(f64, Need)> = None;
    for (position, candidate) in waiting.iter().enumerate() {
        let need = capped(candidate.need);
        match reserved {
            None if need.fits(free) => return Some(position),
            None => reserved = Some(reservation(need, free, running, capped)),
            Some((at, spare)) if need.fits(free) && (candidate.seconds <= at || need.fits(spare)) => {
                return Some(position);
            }
            Some(_) => {}
        }
    }
    None
}

/// When `need` will be free, in seconds from now, and what is left over then.
fn reservation(need: Need, free: Need, running: &[Candidate], capped: impl Fn(Need) -> Need) -> (f64, Need) {
    let mut ends: Vec<&Candidate> = running.iter().collect();
    ends.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let mut then = free;
    for run in ends {
        then = then.plus(capped(run.need));
        if need.fits(then) {
            return (run.seconds, then.minus(need));
        }
    }
    // Somebody else holds what it needs; nothing is known of when that ends.
    (f64::INFINITY, then)
}

/// What carrying out runs in this order takes if all estimates hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Makespan {
    /// Seconds from start to end.
    pub seconds: f64,
    /// Busy time of GPUs and cores over all there is.
    pub utilisation: f64,
}

/// Plays through runs in order of preference on a machine that has nothing else to do, at most `most` at once.
pub fn simulate(order: &[Candidate], whole: Need, most: usize) -> Makespan {
    let mut waiting = order.to_vec();
    let mut running: Vec<Candidate> = Vec::new();
    let (mut now, mut busy) = (0.0, 0.0);
    let units = (whole.gpus + whole.cores).max(1) as f64;
    while !(waiting.is_empty() && running.is_empty()) {
        while running.len() < most
            && let Some(next) = choose(&waiting, &running, whole)
        {
            let run = waiting.remove(next);
            let taken = run.need.gpus.min(whole.gpus) + run.need.cores.min(whole.cores);
            busy += run.seconds * taken as f64;
            running.push(run);
        }
        let Some(step) = running.iter().map(|run| run.seconds).min_by(f64::total_cmp) else { break };
        now += step;
        running.iter_mut().for_each(|run| run.seconds -= step);
        running.retain(|run| run.seconds > 1e-9 * now);
    }
    Makespan { seconds: now, utilisation: if now > 0.0 { busy / (now * units) } else { 1.0 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(gpus: usize, seconds: f64) -> Candidate {
        Candidate { need: Need { gpus, cores: 0 }, seconds }
    }

    const EIGHT: Need = Need { gpus: 8, cores: 0 };

    #[test]
    fn small_runs_pass_a_large_one_only_while_they_do_not_put_it_off() {
        let running = [gpus(5, 10.0), gpus(3, 4.0)];
        assert_eq!(choose(&[gpus(1, 1.0)], &running, EIGHT), None);
        let running = [gpus(5, 10.0)];
        let head = gpus(8, 5.0);
        assert_eq!(choose(&[head, gpus(2, 11.0), gpus(2, 10.0)], &running, EIGHT), Some(2));
        assert_eq!(choose(&[head, gpus(4, 1.0)], &running, EIGHT), None);
        // Two GPUs stay free beside the reservation of six.
        assert_eq!(choose(&[gpus(6, 5.0), gpus(2, 99.0)], &running, EIGHT), Some(1));
        assert_eq!(choose(&[gpus(9, 1.0)], &[], EIGHT), Some(0), "more than there is runs alone");
    }

    /// Six architectures at five depths and twelve more of the smallest, cost by the sixth power of depth.
    fn scaling_study(gpus_at: impl Fn(u32) -> usize) -> Vec<Candidate> {
        let run = |depth: u32| gpus(gpus_at(depth), (f64::from(depth) / 8.0).powi(6) * 3600.0 / gpus_at(depth) as f64);
        let mut runs: Vec<Candidate> = (0..6).flat_map(|_| [8, 12, 16, 20, 24].map(run)).collect();
        runs.extend((0..12).map(|_| run(8)));
        runs.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        runs
    }

    #[test]
    fn the_scaling_study_packs_to_within_five_percent_of_its_bound() {
        for at in [[1, 2, 2, 8, 8], [1, 1, 2, 4, 4]] {
            let runs = scaling_study(|depth| at[(depth as usize - 8) / 4]);
            let bound = runs.iter().map(|run| run.seconds * run.need.gpus as f64).sum::<f64>() / 8.0;
            let made = simulate(&runs, EIGHT, usize::MAX);
            assert!(made.seconds <= 1.05 * bound, "{} against {bound}", made.seconds);
            assert!(made.utilisation >= 0.9, "{}", made.utilisation);
        }
    }
}
