//! Cases under criterion.

use criterion::{Criterion, Throughput};

use switchable_quant::device::DeviceChoice;

use crate::case::{Unit, Work, cases};

/// The environment variable that names devices as `--device` does elsewhere, separated by commas.
const DEVICES: &str = "BENCH_DEVICES";

/// Measures the cases of a group, on the devices that `BENCH_DEVICES` names: by default `cpu`.
///
/// Ids are `group/case/params/device`. A case is prepared when its id passes criterion's filter.
///
/// # Panics
///
/// If a device is not there, or a case gives a wrong answer.
pub fn measure(group: &str, samples: usize) {
    let mut criterion = Criterion::default().sample_size(samples).configure_from_args();
    let devices = std::env::var(DEVICES).unwrap_or_else(|_| "cpu".to_owned());
    let mut measured = criterion.benchmark_group(group);
    for name in devices.split(',') {
        let choice: DeviceChoice = name.parse().unwrap_or_else(|error| panic!("{DEVICES}: {error}"));
        let device = choice.resolve().unwrap_or_else(|error| panic!("{DEVICES}: {error}"));
        let name = if choice == DeviceChoice::Cpu { "flex".to_owned() } else { choice.to_string() };
        for case in cases(&device) {
            let Some(params) = case.id.strip_prefix(group).and_then(|rest| rest.strip_prefix('/')) else { continue };
            measured.throughput(match case.amount {
                (bytes, Unit::Bytes) => Throughput::Bytes(bytes),
                (elements, Unit::Tokens | Unit::Macs) => Throughput::Elements(elements),
            });
            let id = format!("{params}/{name}");
            let (mut waiting, mut prepared) = (Some(case), None);
            measured.bench_function(id, |bencher| {
                let work: &mut Work = prepared.get_or_insert_with(|| waiting.take().expect("a case").prepare());
                bencher.iter(work);
            });
        }
    }
    measured.finish();
    criterion.final_summary();
}
