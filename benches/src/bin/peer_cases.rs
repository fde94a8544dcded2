//! Times cases on request, so that a driver can take turns with another framework.
//!
//! ```text
//! peer_cases --serve        ids on standard input, one a line; `id seconds` on standard output
//! peer_cases ID…            times each and prints `id  milliseconds`
//! peer_cases                lists the ids
//! ```
//!
//! `--device DEVICE` before any of these chooses where, by default `cpu`. A case is prepared when it
//! is first asked for and kept. One answer is the mean of as many runs as fit into a quarter of a
//! second, at least one.

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};
use std::time::{Duration, Instant};

use switchable_quant::device::DeviceChoice;
use switchable_quant_benches::{Case, Work, cases};

const BATCH: Duration = Duration::from_millis(250);

fn seconds(work: &mut Work) -> f64 {
    let start = Instant::now();
    let mut runs = 0;
    while runs == 0 || start.elapsed() < BATCH {
        work();
        runs += 1;
    }
    start.elapsed().as_secs_f64() / f64::from(runs)
}

/// Cases by their ids, prepared as they are asked for.
struct Cases {
    waiting: HashMap<String, Case>,
    prepared: HashMap<String, Work>,
}

impl Cases {
    /// `None` for an id that is not known.
    fn get(&mut self, id: &str) -> Option<&mut Work> {
        if let Some(case) = self.waiting.remove(id) {
            let mut work = case.prepare();
            work();
            self.prepared.insert(id.to_owned(), work);
        }
        self.prepared.get_mut(id)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (device, arguments) = match arguments.as_slice() {
        [flag, device, rest @ ..] if flag == "--device" => (device.parse()?, rest),
        all => (DeviceChoice::Cpu, all),
    };
    let all = cases(&device.resolve()?);
    if arguments.is_empty() {
        for case in &all {
            println!("{}", case.id);
        }
        return Ok(());
    }
    let waiting = all.into_iter().map(|case| (case.id.clone(), case)).collect();
    let mut cases = Cases { waiting, prepared: HashMap::new() };
    if arguments == ["--serve"] {
        return Ok(serve(&mut cases)?);
    }
    for id in arguments {
        let Some(work) = cases.get(id) else {
            println!("{id} unknown");
            continue;
        };
        let mut all: Vec<f64> = (0..7).map(|_| seconds(work)).collect();
        all.sort_by(f64::total_cmp);
        println!("{id}  median {:.3} ms  least {:.3} ms", all[3] * 1e3, all[0] * 1e3);
    }
    Ok(())
}

fn serve(cases: &mut Cases) -> std::io::Result<()> {
    for line in std::io::stdin().lock().lines() {
        let id = line?;
        let answer = cases.get(&id).map_or_else(|| "unknown".to_owned(), |work| seconds(work).to_string());
        let mut out = std::io::stdout().lock();
        writeln!(out, "{id} {answer}")?;
        out.flush()?;
    }
    Ok(())
}
