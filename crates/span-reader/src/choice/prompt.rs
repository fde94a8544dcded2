//! Questions asked one at a time, each answered by a cascade.
//!
//! ```text
//! context> The river Ata flows through Bel.
//! question> Where does the Ata flow?
//! Bel
//!   confidence 0.93, 2.0 bits, 4.1 ms, 81920 bytes
//! ```

use std::io::{BufRead, Result, Write};
use std::time::Instant;

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::TextTokenizer;
use switchable_model::model::SwitchableModel;

use super::cascade::ConfidenceCascade;
use super::controller::PrecisionController;

/// What answers, and says what an answer cost.
#[derive(Debug)]
pub struct Prompt<'a, B: QuantBackend, M> {
    /// Answers.
    pub cascade: &'a ConfidenceCascade<'a, B, M>,
    /// Knows the bits and bytes of the plans.
    pub controller: &'a PrecisionController,
    /// The tokenizer of the model.
    pub tokenizer: &'a TextTokenizer,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Prompt<'_, B, M> {
    /// Reads a context and a question at a time until the input ends; an empty context is the one before.
    /// A question that cannot be answered is told why.
    ///
    /// # Errors
    ///
    /// When the input cannot be read or the output not be written.
    pub fn run(&self, input: impl BufRead, mut output: impl Write) -> Result<()> {
        let mut lines = input.lines();
        let mut ask = |what: &str, output: &mut dyn Write| {
            write!(output, "{what}> ")?;
            output.flush()?;
            lines.next().transpose()
        };
        let mut context = String::new();
        while let Some(line) = ask("context", &mut output)? {
            if !line.trim().is_empty() {
                context = line;
            }
            let Some(question) = ask("question", &mut output)? else { break };
            if let Some(answer) = self.answer(&question, &context) {
                writeln!(output, "{answer}")?;
            }
        }
        Ok(())
    }

    /// The answer with what it cost, or why there is none; nothing where the plan was not measured.
    fn answer(&self, question: &str, context: &str) -> Option<String> {
        let start = Instant::now();
        let answer = match self.cascade.answer(self.tokenizer, question, context) {
            Ok((answer, _)) => answer,
            Err(error) => return Some(error.to_string()),
        };
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let plan = &self.cascade.stages()[answer.stage].plan;
        let pick = self.controller.picks().find(|pick| pick.plan == plan)?;
        let (bits, bytes) = (pick.point.average_bits, pick.point.bytes());
        let (text, confidence) = (&answer.decoded.text, answer.confidence);
        let cost = format!("{bits:.1} bits, {milliseconds:.1} ms, {bytes} bytes");
        Some(format!("{text}\n  confidence {confidence:.2}, {cost}"))
    }
}
