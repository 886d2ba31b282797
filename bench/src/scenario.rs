//! What is measured, one file a subject, and how: interleaved rounds, in each of which every contender runs every test
//! once, in an order that rotates, after a round that does not count.

pub(crate) mod attach;
pub(crate) mod converge;
pub(crate) mod dns;
pub(crate) mod east_west;
pub(crate) mod mesh;
pub(crate) mod overlay;
pub(crate) mod pair;
pub(crate) mod publish;
pub(crate) mod steer;
pub(crate) mod udp;
pub(crate) mod vip;

use anyhow::Result;

use crate::figures::figure;
use crate::measure::{FigureId, Name, Results};

/// How long and whom.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
    /// Empty: all.
    pub(crate) only: Vec<String>,
}

impl Plan {
    pub(crate) fn wants(&self, name: Name) -> bool {
        let plain = |text: &str| text.to_lowercase().replace(',', "").replace([' ', '_'], "-");
        self.only.is_empty() || self.only.iter().any(|only| plain(only) == plain(name))
    }

    /// Runs every test on every contender in every round; what fails is told and left out.
    pub(crate) fn interleave<C, T: Copy>(
        &self,
        results: &mut Results,
        contenders: &[C],
        tests: &[(&'static str, T)],
        name: impl Fn(&C) -> Name,
        mut run: impl FnMut(&C, T, u64) -> Result<Vec<(FigureId, f64)>>,
    ) {
        for round in 0..=self.rounds {
            let (what, seconds) = match round {
                0 => ("warm-up".to_owned(), 1),
                _ => (format!("round {round}/{}", self.rounds), self.seconds),
            };
            for &(title, test) in tests {
                for turn in 0..contenders.len() {
                    let contender = &contenders[(turn + round) % contenders.len()];
                    let who = name(contender);
                    match run(contender, test, seconds) {
                        // It has no part in this test.
                        Ok(values) if values.is_empty() => {}
                        Ok(values) => {
                            eprintln!("  {what}  {title}  {who}: {}", told(&values));
                            if round > 0 {
                                values.iter().for_each(|(id, value)| results.record(id, who, round, *value));
                            }
                        }
                        Err(error) => results.trouble(who, format!("{title}: {error:#}")),
                    }
                }
            }
        }
    }
}

/// A contender that could be started, or none with the reason told.
pub(crate) fn admit<C>(results: &mut Results, name: Name, started: Result<C>) -> Option<C> {
    started.map_err(|error| results.trouble(name, format!("{error:#}"))).ok()
}

fn told(values: &[(FigureId, f64)]) -> String {
    let one = |(id, value): &(FigureId, f64)| {
        format!("{} {}", crate::report::table::number(*value), figure(id).map_or("", |figure| figure.unit))
    };
    values.iter().map(one).collect::<Vec<_>>().join(", ")
}
