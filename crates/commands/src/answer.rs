//! Answers questions about a text, each request by a plan of its own.
//!
//! ```text
//! cargo run --release --example answer
//! cargo run --release --example answer -- --model ARTEFACT --context text.txt --question "Who was it?" "When was it?"
//! cargo run --release --example answer -- --model ARTEFACT --context text.txt --question "Who was it?" --confidence
//! ```
//!
//! The plan is the artefact's own, or one by name, by bytes, by the lower end of the exact match that was measured of
//! it, by the time that a question takes here, or by confidence: at few bits first, again at more where the answer is unsure.
//! Standard output holds a line for each question: the answer, how probable it is, and the bits of the plan.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;

use command_line::answering::{Answering, Opened, WithFolder, WithoutHead};
use command_line::arguments::execution::ExecutionArgs;
use command_line::{finish, outln, output};
use switchable_quant::data::{Article, Dataset, Format, Paragraph, Question};
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::device::DeviceChoice;
use switchable_quant::kernels::QuantBackend;
use switchable_quant::reader::choice::controller::PlanRequest;
use switchable_quant::reader::choice::latency::LatencyOptions;
use switchable_quant::reader::serving::plan_choice::PlanChoice;
use switchable_quant::reader::serving::service::{Request, Service};
use switchable_quant::transformer::model::SwitchableModel;

/// Questions about a text, answered
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Artefact, or Hugging Face folder of a GPT-2 or a Llama with a span head; by default the built-in model. It needs
    /// --question and --context
    #[arg(long, value_name = "DIR|NAME", requires = "question")]
    model: Option<String>,
    /// Questions; by default one that the built-in model was made for
    #[arg(long, value_name = "TEXT", num_args = 1.., requires = "context")]
    question: Vec<String>,
    /// File of the text that holds the answers
    #[arg(long, value_name = "FILE", requires = "question")]
    context: Option<PathBuf>,
    #[command(flatten)]
    choice: ChoiceArgs,
    #[command(flatten)]
    execution: ExecutionArgs,
    /// auto, cpu, ndarray, cuda, cuda:N or wgpu
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

/// How the plan is chosen; by default it is the model's own
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct ChoiceArgs {
    /// A plan of the artefact, by its name
    #[arg(long, value_name = "NAME")]
    plan_name: Option<String>,
    /// The most accurate plan of at most so many bytes
    #[arg(long, value_name = "BYTES")]
    bytes: Option<usize>,
    /// The smallest plan whose exact match is at least so many percent by the lower end of its 95 % interval, as the
    /// measured share itself lies above the true one half of the time
    #[arg(long, value_name = "PERCENT")]
    accuracy: Option<f64>,
    /// The most accurate plan that takes at most so many milliseconds for a question, timed here
    #[arg(long, value_name = "MS")]
    latency: Option<f64>,
    /// At few bits first, again at more where the answer is unsure
    #[arg(long)]
    confidence: bool,
}

impl ChoiceArgs {
    fn choice(&self) -> anyhow::Result<PlanChoice> {
        let by = |request| Ok(PlanChoice::Measured(request));
        if let Some(name) = &self.plan_name {
            Ok(PlanChoice::Named(name.clone()))
        } else if let Some(bytes) = self.bytes {
            by(PlanRequest::Bytes(bytes))
        } else if let Some(percent) = self.accuracy {
            by(PlanRequest::AccuracyForSure(percent))
        } else if let Some(milliseconds) = self.latency {
            let time = Duration::try_from_secs_f64(milliseconds / 1e3);
            by(PlanRequest::Latency(time.with_context(|| format!("`--latency {milliseconds}`"))?))
        } else if self.confidence {
            Ok(PlanChoice::Confidence)
        } else {
            Ok(PlanChoice::Default)
        }
    }
}

/// Runs it as a program of its own.
pub fn main() -> ExitCode {
    finish(|| run(std::env::args_os()))
}

/// Runs it on a command line whose first word names the program.
///
/// # Errors
///
/// Those of the command.
pub fn run(line: impl IntoIterator<Item = OsString>) -> anyhow::Result<()> {
    let arguments = output::parse::<Arguments>(line);
    let (choice, asked) = (arguments.choice.choice()?, arguments.asked()?);
    let machine = arguments.device.resolve()?;
    let answering = Answering {
        model: arguments.model.as_deref(),
        machine: &machine,
        execution: arguments.execution,
        without_head: WithoutHead::Refused,
    };
    answering.run(Asking { choice, asked, machine: machine.to_string() })
}

/// Questions about a text.
struct Asked {
    context: String,
    questions: Vec<String>,
}

impl Arguments {
    fn asked(&self) -> anyhow::Result<Asked> {
        if let Some(file) = &self.context {
            let context = std::fs::read_to_string(file).with_context(|| format!("--context {}", file.display()))?;
            return Ok(Asked { context, questions: self.question.clone() });
        }
        let example = default_model::questions(QuestionSet::HeldOut)?.examples().swap_remove(0);
        outln!("{}\n{}", example.context, example.question);
        Ok(Asked { context: example.context.to_string(), questions: vec![example.question] })
    }
}

impl Asked {
    /// The questions as data, to time plans on.
    fn dataset(&self) -> Dataset {
        let question = |(index, question): (usize, &String)| Question {
            id: index.to_string(),
            question: question.clone(),
            answers: Vec::new(),
            plausible_answers: Vec::new(),
            is_impossible: false,
        };
        let questions = self.questions.iter().enumerate().map(question).collect();
        let paragraphs = vec![Paragraph { context: self.context.clone(), questions }];
        Dataset { format: Format::V1, articles: vec![Article { title: String::new(), paragraphs }] }
    }
}

struct Asking {
    choice: PlanChoice,
    asked: Asked,
    machine: String,
}

impl WithFolder for Asking {
    fn run<B: QuantBackend, M: SwitchableModel<B>>(self, opened: Opened<B, M>) -> anyhow::Result<()> {
        let Self { choice, asked, machine } = self;
        let mut service = Service::new(opened.folder)?;
        if matches!(choice, PlanChoice::Measured(PlanRequest::Latency(_))) {
            service = service.timed(asked.dataset(), &LatencyOptions::new(machine))?;
        }
        if choice == PlanChoice::Confidence && service.stages() == 1 {
            eprintln!("the cascade has one plan alone: there is nothing to escalate to");
        }
        let request = |question: &String| Request {
            question: question.clone(),
            context: asked.context.clone(),
            choice: choice.clone(),
        };
        let requests: Vec<Request> = asked.questions.iter().map(request).collect();
        let mut told = Vec::new();
        for (question, answer) in asked.questions.iter().zip(service.answer_all(&requests)?) {
            let sure = match answer.confidence {
                Some(confidence) => format!("confidence {confidence:.2}"),
                None => format!("probability {:.2}", answer.decoded.probability),
            };
            outln!("{}\t{sure}\t{:.1} bits", answer.decoded.text, answer.average_bits);
            told.push(json!({
                "question": question, "answer": answer.decoded.text, "probability": answer.decoded.probability,
                "confidence": answer.confidence, "average_bits": answer.average_bits, "escalations": answer.escalations.len(),
            }));
        }
        output::result(&json!({ "answers": told }))
    }
}
