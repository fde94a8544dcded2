//! Devices that train together.

use anyhow::ensure;
use clap::Args;

use switchable_quant::burn::tensor::backend::DeviceId;
use switchable_quant::device::{Device, DeviceChoice};
use switchable_quant::reader::running::workers::Workers;

use crate::ending::usage;

/// Devices that train together with that of `--device`.
#[derive(Debug, Clone, Args)]
pub struct FurtherDevicesArgs {
    /// Devices beside --device that compute a share of the parts of a step, such as cuda:1,cuda:2; what is trained is
    /// the same, to the bit on devices of one kind
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',')]
    pub further_devices: Vec<DeviceChoice>,
}

impl FurtherDevicesArgs {
    /// The devices beside `first`, each known to answer.
    ///
    /// # Errors
    ///
    /// When there are more devices than parts of a step, a device does not answer, is named twice, or is not of the backend
    /// of `first`.
    pub fn beside(&self, first: &Device, micro_batches: usize) -> anyhow::Result<Vec<DeviceId>> {
        let devices = self.further_devices.len() + 1;
        if devices > micro_batches {
            return Err(usage(format!(
                "`--micro-batches {micro_batches}` with {devices} devices, expected at least {devices}: each computes whole parts"
            )));
        }
        let mut beside = Vec::new();
        for choice in &self.further_devices {
            let id = choice.resolve()?.id_beside(first).ok_or_else(|| {
                usage(format!(
                    "`--further-devices {choice}` beside {first}, expected other CUDA devices than the first; on a CPU \
                     `--workers` share the parts of a step"
                ))
            })?;
            ensure!(!beside.contains(&id), usage(format!("`--further-devices` names {choice} twice")));
            beside.push(id);
        }
        Ok(beside)
    }

    /// Workers for the first device and those beside it: these, or one for each device, so that all of them work.
    pub fn workers(&self, workers: Workers) -> Workers {
        let devices = self.further_devices.len() + 1;
        if workers.len() < devices { Workers::new(devices) } else { workers }
    }
}
