//! `make bench`: netd beside what else a user would pick, measured in the lab, each figure beside its goal.
//!
//! scenario -> site (namespaces), rival (who forwards), programs (what answers), load (who asks) -> measure -> report.

mod figures;
mod load;
mod measure;
mod programs;
mod report;
mod rival;
mod scenario;
mod site;
mod task;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use netd_tests::{Lab, lab};

use crate::measure::Results;
use crate::report::facts::Facts;
use crate::report::{json, plot, table};
use crate::scenario::Plan;

/// Measures netd beside its rivals in namespaces of their own; needs root.
#[derive(Parser)]
#[command(name = "netd-bench", after_help = EXAMPLES)]
struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value_t = Subject::All)]
    subject: Subject,
    /// How often everything is run; the medians of the rounds count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// How long each single run is
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Measure only these, as the table names them (blanks may be dashes, commas are left out)
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Where the table, the JSON and the plots go
    #[arg(long, default_value = "bench/results", value_name = "DIR")]
    out: PathBuf,
    /// One round of one second: to see that everything runs, not how fast
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// A published TCP port (rows P1 to P8)
    Publish,
    /// A published UDP port (U1 to U3)
    Udp,
    /// Container to container on one host (B1)
    EastWest,
    /// Container to a service's address on one host (V1), ten thousand services
    Vip,
    /// Container to container on two nodes (O1)
    Overlay,
    /// A port of a node without backends
    Mesh,
    /// A change on one node until the last of 3, 10 and 25 serves it (C1)
    Converge,
    /// A bound port beside steered ones: sk_lookup, tproxy
    Steer,
    /// The DNS server (N1 to N3)
    Dns,
    /// Attach, many ports, many sandboxes, rest (A, R, S, M)
    Attach,
    All,
}

const EXAMPLES: &str = "Examples:
  make bench                                     everything, about 20 minutes
  make bench BENCH='publish --only netd,direct'  the relay against the bare road
  make bench BENCH='udp --rounds 9 --seconds 4'  more rounds, for smaller differences
  make bench BENCH=--quick                       a look whether all of it runs";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match lab::shut_in(|lab| bench(lab, &arguments)) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("netd-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(lab: &Lab, arguments: &Arguments) -> Result<()> {
    let (rounds, seconds) = if arguments.quick { (1, 1) } else { (arguments.rounds, arguments.seconds) };
    let plan = Plan { rounds: usize::try_from(rounds)?, seconds, only: arguments.only.clone() };
    let facts = Facts::gather(&plan);
    let mut results = Results::default();
    let scenarios: [(Subject, Scenario); 10] = [
        (Subject::Publish, scenario::publish::run),
        (Subject::Udp, scenario::udp::run),
        (Subject::EastWest, scenario::east_west::run),
        (Subject::Vip, scenario::vip::run),
        (Subject::Overlay, scenario::overlay::run),
        (Subject::Mesh, scenario::mesh::run),
        (Subject::Converge, scenario::converge::run),
        (Subject::Steer, scenario::steer::run),
        (Subject::Dns, scenario::dns::run),
        (Subject::Attach, scenario::attach::run),
    ];
    for (subject, run) in scenarios {
        if arguments.subject == subject || arguments.subject == Subject::All {
            eprintln!("{subject:?}");
            // What the others found is still worth telling.
            if let Err(error) = run(lab, &plan, &mut results) {
                results.trouble(figures::NETD, format!("{subject:?} stopped: {error:#}"));
            }
        }
    }
    tell(arguments, &facts, &results)
}

type Scenario = fn(&Lab, &Plan, &mut Results) -> Result<()>;

fn tell(arguments: &Arguments, facts: &Facts, results: &Results) -> Result<()> {
    let head = format!(
        "{} x {}, kernel {}, commit {}, {} rounds of {} s",
        facts.processors, facts.processor, facts.kernel, facts.commit, facts.rounds, facts.seconds
    );
    let text = format!("{head}\n\n{}", table::render(results));
    println!("{text}");
    let out = &arguments.out;
    std::fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
    let name = format!("{:?}", arguments.subject).to_lowercase();
    let write = |ending: &str, bytes: &[u8]| {
        let path = out.join(format!("{name}.{ending}"));
        std::fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))
    };
    write("txt", text.as_bytes())?;
    write("json", json::render(facts, results)?.as_bytes())?;
    if let Some(svg) = plot::svg(results, &format!("{head}; the red line is the goal"))? {
        write("svg", svg.as_bytes())?;
        write("png", &plot::png(&svg)?)?;
    }
    eprintln!("written: {}", Path::new(out).join(format!("{name}.{{txt,json,svg,png}}")).display());
    Ok(())
}
