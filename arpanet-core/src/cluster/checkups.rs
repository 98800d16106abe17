//! Which checks of this host's containers are due, and what their answers have come to. Pure.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tokio::time::Instant;

use crate::ContainerName;
use crate::health::{ContainerHealth, Judge, Question, Verdict};
use crate::overlay::NetNamespace;
use crate::runtime::{Check, Container};

/// Names one question that was asked; no two are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// From a start of a container to its end: what answered before says nothing of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    id: String,
    namespace: Option<NetNamespace>,
    checks: Vec<Check>,
}

impl Run {
    fn of(container: &Container) -> Self {
        Self {
            id: container.id.clone(),
            namespace: container.namespace.clone(),
            checks: container.spec.checks.clone(),
        }
    }
}

/// A container whose checks are asked.
#[derive(Debug)]
struct Examined {
    run: Run,
    ip: Ipv4Addr,
    port: u16,
    /// One for each check, in their order.
    courses: Vec<Course>,
}

/// One check of one run.
#[derive(Debug)]
struct Course {
    judge: Judge,
    due: Instant,
    asked: Option<Ticket>,
    has_answered: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Checkups {
    examined: BTreeMap<ContainerName, Examined>,
    tickets: u64,
}

impl Checkups {
    /// From now on the checks of these containers are asked, each at its address, and no others. One that runs on goes on
    /// as it was. Whether that changed anything.
    pub(super) fn follow<'a>(
        &mut self,
        now: Instant,
        containers: impl IntoIterator<Item = (&'a Container, Ipv4Addr)>,
    ) -> bool {
        let mut before = std::mem::take(&mut self.examined);
        let mut changed = false;
        for (container, ip) in containers {
            let service = container.spec.service.as_ref();
            let port = service.map_or(0, |service| service.port);
            let run = Run::of(container);
            let known = before.remove(&container.name);
            let examined = match known.filter(|known| known.run == run) {
                Some(known) => {
                    changed |= (known.ip, known.port) != (ip, port);
                    Examined { ip, port, ..known }
                }
                None => {
                    changed = true;
                    let checks = run.checks.iter();
                    let courses = checks.map(|_| Course {
                        judge: Judge::new(now),
                        due: now,
                        asked: None,
                        has_answered: false,
                    });
                    let courses = courses.collect();
                    Examined {
                        run,
                        ip,
                        port,
                        courses,
                    }
                }
            };
            self.examined.insert(container.name.clone(), examined);
        }
        changed || !before.is_empty()
    }

    fn courses(&self) -> impl Iterator<Item = &Course> {
        self.examined
            .values()
            .flat_map(|examined| &examined.courses)
    }

    /// Takes the questions that are due, those that wait longest first, and at most this many.
    pub(super) fn take_due(&mut self, now: Instant, most: usize) -> Vec<(Ticket, Question)> {
        let mut due: Vec<(Instant, &ContainerName, usize)> = Vec::new();
        for (name, examined) in &self.examined {
            let courses = examined.courses.iter().enumerate();
            let open = courses.filter(|(_, course)| course.asked.is_none() && course.due <= now);
            due.extend(open.map(|(at, course)| (course.due, name, at)));
        }
        due.sort_unstable();
        let due: Vec<(ContainerName, usize)> = due
            .into_iter()
            .take(most)
            .map(|(_, name, at)| (name.clone(), at))
            .collect();
        let mut taken = Vec::new();
        for (name, at) in due {
            let Some(examined) = self.examined.get_mut(&name) else {
                continue;
            };
            let (Some(check), Some(course)) =
                (examined.run.checks.get(at), examined.courses.get_mut(at))
            else {
                continue;
            };
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            course.asked = Some(ticket);
            let question = Question {
                container: name,
                ip: examined.ip,
                port: examined.port,
                probe: check.probe.clone(),
                timeout: check.timeout(),
            };
            taken.push((ticket, question));
        }
        taken
    }

    /// When the next question is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let open = self.courses().filter(|course| course.asked.is_none());
        open.map(|course| course.due).min()
    }

    /// Whether anybody still wants the answer.
    pub(super) fn awaits(&self, ticket: Ticket) -> bool {
        self.courses().any(|course| course.asked == Some(ticket))
    }

    /// Whether every check has been answered once, whatever the answer.
    pub(super) fn all_have_answered(&self) -> bool {
        self.courses().all(|course| course.has_answered)
    }

    /// Takes an answer; whether its container is another than before by it. `chance` is from 0 up to 1.
    pub(super) fn hear(
        &mut self,
        ticket: Ticket,
        now: Instant,
        answer: Result<(), String>,
        chance: f64,
    ) -> bool {
        for examined in self.examined.values_mut() {
            let pairs = examined.run.checks.iter().zip(&mut examined.courses);
            for (check, course) in pairs {
                if course.asked != Some(ticket) {
                    continue;
                }
                let before = course.judge.verdict();
                course.judge.hear(check, now, answer);
                course.due = now + course.judge.wait(check, chance);
                course.asked = None;
                course.has_answered = true;
                return course.judge.verdict() != before;
            }
        }
        false
    }

    /// How a container is by its checks and its engine's; `None` where there are neither.
    pub(super) fn health(&self, container: &Container) -> Option<ContainerHealth> {
        let engine = container.health.map(ContainerHealth::by_engine);
        let checks = (!container.spec.checks.is_empty()).then(|| self.by_checks(container));
        match (checks, engine) {
            (Some(checks), Some(engine)) => Some(checks.and(engine)),
            (checks, engine) => checks.or(engine),
        }
    }

    fn by_checks(&self, container: &Container) -> ContainerHealth {
        let examined = self.examined.get(&container.name);
        let Some(examined) = examined.filter(|examined| examined.run == Run::of(container)) else {
            return ContainerHealth::Starting { why: None };
        };
        let health = examined.courses.iter().map(|course| {
            let why = course.judge.last_failure().map(str::to_owned);
            match course.judge.verdict() {
                Verdict::Passing => ContainerHealth::Passing,
                Verdict::Starting => ContainerHealth::Starting { why },
                Verdict::Failing => ContainerHealth::Failing {
                    why: why.unwrap_or_default(),
                },
            }
        });
        health.fold(ContainerHealth::Passing, ContainerHealth::and)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::runtime::{ContainerSpec, EngineHealth};

    const IP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 5);

    fn container(name: &str, namespace: u64, checks: &[&str]) -> Container {
        let spec = checks
            .iter()
            .fold(ContainerSpec::command(["httpd"]), |spec, check| {
                spec.check(Check::new(check.parse().unwrap()))
            });
        Container::new(name.parse().unwrap(), "1", spec, SystemTime::UNIX_EPOCH)
            .namespace(Some(NetNamespace::Simulated(namespace)))
    }

    fn no() -> Result<(), String> {
        Err("no".to_owned())
    }

    #[test]
    fn all_checks_and_the_engine_s_have_to_pass() {
        let mut checkups = Checkups::default();
        let now = Instant::now();
        let one = container("w1", 1, &["tcp:80", "http:80/"]);
        assert!(checkups.follow(now, [(&one, IP)]));
        assert!(!checkups.follow(now, [(&one, IP)]));
        assert!(!checkups.all_have_answered());
        let asked = checkups.take_due(now, 9);
        assert_eq!(asked.len(), 2);
        assert!(checkups.take_due(now, 9).is_empty() && checkups.next_due().is_none());
        assert!(checkups.hear(asked[0].0, now, Ok(()), 0.5));
        assert!(!checkups.health(&one).unwrap().is_passing());
        assert!(checkups.hear(asked[1].0, now, Ok(()), 0.5));
        assert!(checkups.health(&one).unwrap().is_passing() && checkups.all_have_answered());
        for (health, passes) in [
            (EngineHealth::Starting, false),
            (EngineHealth::Unhealthy, false),
            (EngineHealth::Healthy, true),
        ] {
            let one = one.clone().health(Some(health));
            assert_eq!(checkups.health(&one).unwrap().is_passing(), passes);
        }
        assert_eq!(checkups.health(&container("w2", 2, &[])), None);
    }

    #[test]
    fn what_another_run_answered_says_nothing() {
        let mut checkups = Checkups::default();
        let now = Instant::now();
        let first = container("w1", 1, &["tcp:80"]);
        checkups.follow(now, [(&first, IP)]);
        let early = checkups.take_due(now, 1)[0].0;
        assert!(checkups.awaits(early));
        // It was restarted while it was asked.
        let second = container("w1", 2, &["tcp:80"]);
        assert!(checkups.follow(now, [(&second, IP)]));
        assert!(!checkups.awaits(early));
        assert!(!checkups.hear(early, now, Ok(()), 0.5));
        assert!(!checkups.health(&second).unwrap().is_passing());
        let asked = checkups.take_due(now, 1)[0].0;
        assert!(checkups.hear(asked, now, Ok(()), 0.5));
        assert!(checkups.health(&second).unwrap().is_passing());
        // The view may be older than the checkups.
        assert!(!checkups.health(&first).unwrap().is_passing());
        // Its end takes all of it.
        assert!(checkups.follow(now, []));
        assert_eq!(checkups.next_due(), None);
        assert!(!checkups.health(&second).unwrap().is_passing());
    }

    #[test]
    fn another_address_is_asked_at_and_the_verdict_stays() {
        let mut checkups = Checkups::default();
        let now = Instant::now();
        let one = container("w1", 1, &["tcp:80"]);
        checkups.follow(now, [(&one, IP)]);
        let ticket = checkups.take_due(now, 1)[0].0;
        checkups.hear(ticket, now, Ok(()), 0.5);
        let other = Ipv4Addr::new(10, 2, 0, 5);
        assert!(checkups.follow(now, [(&one, other)]));
        assert!(checkups.health(&one).unwrap().is_passing());
        let due = checkups.next_due().unwrap();
        assert!(checkups.take_due(now, 1).is_empty());
        assert_eq!(checkups.take_due(due, 1)[0].1.ip, other);
    }

    #[test]
    fn those_that_wait_longest_come_first_and_the_reason_is_kept() {
        let mut checkups = Checkups::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let (one, two) = (
            container("a1", 1, &["tcp:80"]),
            container("a2", 2, &["tcp:80"]),
        );
        checkups.follow(now, [(&two, IP)]);
        checkups.follow(later, [(&one, IP), (&two, IP)]);
        let first = checkups.take_due(later, 1);
        assert_eq!(first[0].1.container.as_str(), "a2");
        assert_eq!(checkups.next_due(), Some(later));
        checkups.hear(first[0].0, later, no(), 0.5);
        let why = Some("no".to_owned());
        assert_eq!(
            checkups.health(&two),
            Some(ContainerHealth::Starting { why })
        );
    }
}
