//! Ctrl-C.

use switchable_quant::reader::running::stop::StopFlag;

/// A flag that Ctrl-C raises. The first one lets the work stop at its next safe point and save; a
/// second one ends the program at once.
///
/// # Errors
///
/// When the handler cannot be installed.
pub fn stop_on_ctrl_c() -> anyhow::Result<StopFlag> {
    let stop = StopFlag::default();
    let raised = stop.clone();
    ctrlc::set_handler(move || {
        if raised.is_requested() {
            std::process::exit(130);
        }
        eprintln!("stopping at the next safe point; press Ctrl-C again to end at once");
        raised.request();
    })?;
    Ok(stop)
}
