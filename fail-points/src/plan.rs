//! What `FAIL_POINTS` asks for, and doing it.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use rustix::process::{Signal, getpid, kill_process};

use crate::{Fault, Point};

/// A pause that is longer is refused: it could not be told from a process that hangs.
const PAUSE_MS_MAX: u64 = 600_000;

/// Why a process refuses to start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such place.
    #[error("FAIL_POINTS: there is no fail point `{name}`; there are {}", names(&Point::ALL.map(Point::name)))]
    UnknownPoint {
        /// What was asked for.
        name: String,
    },
    /// What shall happen there can't be read.
    #[error("FAIL_POINTS: `{text}` is not such as {}=kill@3 or {}=pause:200ms%1/50:7", Point::PaymentCharged.name(), Point::BrokerSynced.name())]
    Syntax {
        /// What was asked for.
        text: String,
    },
    /// There is no such fault.
    #[error("SABOTAGE: there is no fault `{name}`; there are {}", names(&Fault::ALL.map(Fault::name)))]
    UnknownFault {
        /// What was asked for.
        name: String,
    },
    /// The build keeps its promises.
    #[error("SABOTAGE: this build can't be broken; tests of orderflow build one that can")]
    Sound,
}

fn names(names: &[&str]) -> String {
    names.join(", ")
}

/// The environment is read once.
static PLAN: LazyLock<Result<Plan, Error>> =
    LazyLock::new(|| Plan::parse(&std::env::var("FAIL_POINTS").unwrap_or_default()));

/// Says whether `FAIL_POINTS` and `SABOTAGE` can be done as they stand in the environment.
pub fn check() -> Result<(), Error> {
    PLAN.as_ref().map_err(Clone::clone)?;
    match std::env::var("SABOTAGE") {
        Ok(name) if !Fault::ALL.iter().any(|fault| fault.name() == name) => Err(Error::UnknownFault { name }),
        Ok(_) if !cfg!(feature = "sabotage") => Err(Error::Sound),
        _ => Ok(()),
    }
}

/// Passes a place: nothing happens unless it is armed.
///
/// An armed pause holds up the thread, as if the system had not scheduled it.
#[inline]
pub fn pass(point: Point) {
    if let Ok(plan) = &*PLAN
        && !plan.0.is_empty()
    {
        plan.pass(point);
    }
}

/// What shall happen where.
#[derive(Debug)]
struct Plan(Vec<Armed>);

#[derive(Debug)]
struct Armed {
    point: Point,
    action: Action,
    when: Mutex<When>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Pause(Duration),
}

#[derive(Debug)]
enum When {
    /// At the passing after so many others.
    After(u64),
    Past,
    Chance {
        times: u64,
        of: u64,
        rng: Rng,
    },
}

impl Plan {
    fn parse(text: &str) -> Result<Self, Error> {
        text.split(',').filter(|text| !text.is_empty()).map(Armed::parse).collect::<Result<_, _>>().map(Self)
    }

    fn pass(&self, point: Point) {
        for armed in self.0.iter().filter(|armed| armed.point == point) {
            if armed.when.lock().unwrap_or_else(PoisonError::into_inner).is_now() {
                armed.action.run(point);
            }
        }
    }
}

impl Armed {
    fn parse(text: &str) -> Result<Self, Error> {
        let syntax = || Error::Syntax { text: text.to_owned() };
        let (name, rest) = text.split_once('=').ok_or_else(syntax)?;
        let point = Point::from_name(name).ok_or_else(|| Error::UnknownPoint { name: name.to_owned() })?;
        let at = rest.find(['@', '%']).ok_or_else(syntax)?;
        let (action, when) = rest.split_at(at);
        let action = Action::parse(action).ok_or_else(syntax)?;
        let when = When::parse(when).ok_or_else(syntax)?;
        Ok(Self { point, action, when: Mutex::new(when) })
    }
}

impl Action {
    fn parse(text: &str) -> Option<Self> {
        if text == "kill" {
            return Some(Self::Kill);
        }
        let pause_ms: u64 = text.strip_prefix("pause:")?.strip_suffix("ms")?.parse().ok()?;
        (1..=PAUSE_MS_MAX).contains(&pause_ms).then(|| Self::Pause(Duration::from_millis(pause_ms)))
    }

    fn run(self, point: Point) {
        match self {
            Self::Pause(pause) => std::thread::sleep(pause),
            Self::Kill => {
                eprintln!("fail point {}: this process kills itself", point.name());
                // A process may always signal itself, and nothing runs in it after this one.
                let _ = kill_process(getpid(), Signal::KILL);
                loop {
                    std::thread::park();
                }
            }
        }
    }
}

impl When {
    fn parse(text: &str) -> Option<Self> {
        if let Some(number) = text.strip_prefix('@') {
            return number.parse::<u64>().ok()?.checked_sub(1).map(Self::After);
        }
        let (chance, seed) = text.strip_prefix('%')?.split_once(':')?;
        let (times, of) = chance.split_once('/')?;
        let (times, of): (u64, u64) = (times.parse().ok()?, of.parse().ok()?);
        let rng = Rng::with_seed(seed.parse().ok()?);
        (1..=of).contains(&times).then_some(Self::Chance { times, of, rng })
    }

    fn is_now(&mut self) -> bool {
        match self {
            Self::After(0) => {
                *self = Self::Past;
                true
            }
            Self::After(others) => {
                *others -= 1;
                false
            }
            Self::Past => false,
            Self::Chance { times, of, rng } => rng.u64(0..*of) < *times,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passings(text: &str, count: usize) -> Vec<bool> {
        let plan = Plan::parse(text).unwrap();
        let mut when = plan.0[0].when.lock().unwrap();
        (0..count).map(|_| when.is_now()).collect()
    }

    #[test]
    fn the_third_passing_is_the_third_and_only_once() {
        assert_eq!(passings("payment.charged=kill@3", 5), [false, false, true, false, false]);
        assert_eq!(passings("payment.charged=kill@1", 2), [true, false]);
    }

    #[test]
    fn a_chance_comes_from_its_seed_alone() {
        let text = "broker.synced=pause:200ms%1/50:7";
        let passed = passings(text, 5_000);
        assert_eq!(passed, passings(text, 5_000));
        let times = passed.iter().filter(|is_now| **is_now).count();
        assert!((50..=150).contains(&times), "{times}");
        assert_ne!(passed, passings("broker.synced=pause:200ms%1/50:8", 5_000));
        assert_eq!(passings("broker.synced=kill%1/1:0", 2), [true, true]);
    }

    #[test]
    fn several_places_are_armed_each_with_its_own_action() {
        let plan = Plan::parse("payment.charged=kill@3,broker.synced=pause:200ms@1").unwrap();
        let armed: Vec<_> = plan.0.iter().map(|armed| (armed.point, armed.action)).collect();
        let pause = Action::Pause(Duration::from_millis(200));
        assert_eq!(armed, [(Point::PaymentCharged, Action::Kill), (Point::BrokerSynced, pause)]);
        assert!(Plan::parse("").unwrap().0.is_empty());
    }

    #[test]
    fn an_unknown_place_is_refused_with_the_names_of_all() {
        let error = Plan::parse("payment.charge=kill@1").unwrap_err();
        assert_eq!(error, Error::UnknownPoint { name: "payment.charge".to_owned() });
        for point in Point::ALL {
            assert!(error.to_string().contains(point.name()), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_whole() {
        for text in [
            "payment.charged",
            "payment.charged=kill",
            "payment.charged=kill@0",
            "payment.charged=kill@many",
            "payment.charged=die@1",
            "payment.charged=pause@1",
            "payment.charged=pause:200@1",
            "payment.charged=pause:0ms@1",
            "payment.charged=pause:600001ms@1",
            "payment.charged=kill%1/50",
            "payment.charged=kill%0/50:1",
            "payment.charged=kill%51/50:1",
            "payment.charged=kill%1/50:seed",
        ] {
            assert_eq!(Plan::parse(text).unwrap_err(), Error::Syntax { text: text.to_owned() });
        }
    }

    #[test]
    fn the_names_of_places_are_different() {
        for point in Point::ALL {
            assert_eq!(Point::from_name(point.name()), Some(point));
        }
    }
}
