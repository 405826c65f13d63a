//! How many refusals of one client the audit log takes: whoever asks for what is refused, again and again, must not fill
//! it.
//!
//! Invariant: what is left out is counted, and told with the next refusal that is noted. The count does not outlive the
//! process: a restart may forget how many were left out, and never what was noted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Refusals that are noted of one client within [`WINDOW`].
const MOST: u32 = 60;
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Window {
    begun: Instant,
    noted: u32,
    left_out: u64,
}

/// What was noted of late, by client.
#[derive(Debug, Default)]
pub struct RefusalLog(Mutex<BTreeMap<String, Window>>);

impl RefusalLog {
    /// Whether a refusal is to be noted; if so, how many of the same client were left out before it.
    pub fn admit(&self, client: &str, now: Instant) -> Option<u64> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |window: &Window| now.saturating_duration_since(window.begun) >= WINDOW;
        windows.retain(|_, window| window.left_out > 0 || !is_over(window));
        let fresh = || Window {
            begun: now,
            noted: 0,
            left_out: 0,
        };
        let window = windows.entry(client.to_owned()).or_insert_with(fresh);
        let mut before = 0;
        if is_over(window) {
            before = window.left_out;
            *window = fresh();
        }
        if window.noted == MOST {
            window.left_out += 1;
            return None;
        }
        window.noted += 1;
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_noted_and_the_rest_is_counted_for_the_next_one() {
        let log = RefusalLog::default();
        let begun = Instant::now();
        for _ in 0..MOST {
            assert_eq!(log.admit("a", begun), Some(0));
        }
        assert_eq!(log.admit("a", begun), None);
        assert_eq!(log.admit("a", begun), None);
        assert_eq!(log.admit("b", begun), Some(0), "each has its own");
        assert_eq!(log.admit("a", begun + WINDOW), Some(2));
        assert_eq!(log.admit("a", begun + WINDOW), Some(0));
        log.admit("c", begun + 3 * WINDOW);
        assert_eq!(log.0.lock().unwrap().len(), 1, "who is quiet is forgotten");
    }
}
