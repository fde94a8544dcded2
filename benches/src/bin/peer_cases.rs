//! Times cases on request, so that a driver can take turns with another framework.
//!
//! ```text
//! peer_cases --serve        ids on standard input, one a line; `id seconds` on standard output
//! peer_cases ID…            times each and prints `id  milliseconds`
//! peer_cases                lists the ids
//! ```
//!
//! A case is built when it is first asked for and kept. One answer is the mean of as many runs as
//! fit into a quarter of a second, at least one.

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::time::{Duration, Instant};

use switchable_quant_benches::{Case, build, known_ids};

const BATCH: Duration = Duration::from_millis(250);

fn seconds(case: &mut Case) -> f64 {
    let start = Instant::now();
    let mut runs = 0;
    while runs == 0 || start.elapsed() < BATCH {
        (case.run)();
        runs += 1;
    }
    start.elapsed().as_secs_f64() / f64::from(runs)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => known_ids().iter().for_each(|id| println!("{id}")),
        [flag] if flag == "--serve" => serve(),
        ids => {
            for id in ids {
                let Some(mut case) = build(id) else {
                    println!("{id} unknown");
                    continue;
                };
                (case.run)();
                let mut all: Vec<f64> = (0..7).map(|_| seconds(&mut case)).collect();
                all.sort_by(f64::total_cmp);
                println!("{id}  median {:.3} ms  least {:.3} ms", all[3] * 1e3, all[0] * 1e3);
            }
        }
    }
}

fn serve() {
    let mut cases = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let Ok(id) = line else { return };
        let case = cases.entry(id.clone()).or_insert_with(|| {
            build(&id).map(|mut case| {
                (case.run)();
                case
            })
        });
        let mut out = std::io::stdout().lock();
        let written = match case {
            Some(case) => writeln!(out, "{id} {}", seconds(case)),
            None => writeln!(out, "{id} unknown"),
        };
        if written.and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
