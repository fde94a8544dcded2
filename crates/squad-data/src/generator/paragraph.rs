//! One paragraph: who, what, in which words, and what is asked.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::attributes::{ATTRIBUTES, Attribute, FILLERS};
use super::names::{FAMILY, GIVEN, split_of};
use super::{GeneratorConfig, SentenceOrder, Split};
use crate::dataset::{Answer, Paragraph, Question};

/// A person, by positions in the lists of names.
#[derive(Debug, Clone, Copy)]
struct Person {
    given: usize,
    family: usize,
}

impl Person {
    fn full_name(self) -> String {
        format!("{} {}", GIVEN[self.given], FAMILY[self.family])
    }

    /// The full name, or with `given_name_probability` the given name alone.
    fn called(self, config: &GeneratorConfig, rng: &mut ChaCha8Rng) -> String {
        if rng.random_bool(config.given_name_probability) { GIVEN[self.given].to_owned() } else { self.full_name() }
    }
}

/// A statement about `person`: positions of one attribute or two in the paragraph's list.
#[derive(Debug)]
struct Sentence {
    person: usize,
    attributes: Vec<usize>,
}

/// The paragraph's text while it grows, counted in characters.
#[derive(Debug, Default)]
struct Text {
    text: String,
    chars: usize,
}

impl Text {
    fn push(&mut self, piece: &str) {
        self.text.push_str(piece);
        self.chars += piece.chars().count();
    }

    /// Appends `template` with its placeholders replaced; returns where the value begins, if the
    /// template has one.
    fn push_template(&mut self, template: &str, name: &str, value: &str) -> Option<usize> {
        let mut value_start = None;
        let mut rest = template;
        while let Some((before, placeholder, after)) = split_placeholder(rest) {
            self.push(before);
            match placeholder {
                "name" => self.push(name),
                "a" => self.push(indefinite_article(value)),
                "value" => {
                    value_start = Some(self.chars);
                    self.push(value);
                }
                other => unreachable!("template `{template}` has a placeholder `{other}`"),
            }
            rest = after;
        }
        self.push(rest);
        value_start
    }
}

/// `"is {a} cat"` → `("is ", "a", " cat")`.
fn split_placeholder(template: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = template.split_once('{')?;
    let (placeholder, after) = rest.split_once('}')?;
    Some((before, placeholder, after))
}

/// The pools are chosen so that the first letter decides.
fn indefinite_article(value: &str) -> &'static str {
    if value.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// A position below `len`; drawn as `u32`, so that 32-bit platforms draw the same.
fn draw_below(len: usize, rng: &mut ChaCha8Rng) -> usize {
    rng.random_range(0..len as u32) as usize
}

fn pick(wordings: &[&'static str], rng: &mut ChaCha8Rng) -> &'static str {
    wordings[draw_below(wordings.len(), rng)]
}

/// `count` different positions below `len`, in random order.
fn draw_distinct(len: usize, count: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..len).collect();
    for i in 0..count {
        let j = i + draw_below(len - i, rng);
        positions.swap(i, j);
    }
    positions.truncate(count);
    positions
}

/// A person of `split` who shares no name with `others`.
fn draw_person(split: Split, others: &[Person], rng: &mut ChaCha8Rng) -> Person {
    loop {
        let person = Person { given: draw_below(GIVEN.len(), rng), family: draw_below(FAMILY.len(), rng) };
        let is_new = others.iter().all(|other| other.given != person.given && other.family != person.family);
        if is_new && split_of(person.given, person.family) == split {
            return person;
        }
    }
}

/// What a paragraph tells.
struct Facts {
    people: Vec<Person>,
    attributes: Vec<&'static Attribute>,
    /// `values[person][attribute]`.
    values: Vec<Vec<&'static str>>,
}

impl Facts {
    fn draw(config: &GeneratorConfig, rng: &mut ChaCha8Rng) -> Self {
        let mut people = Vec::with_capacity(config.entities);
        for _ in 0..config.entities {
            people.push(draw_person(config.split, &people, rng));
        }
        let attributes: Vec<&Attribute> = draw_distinct(ATTRIBUTES.len(), config.attributes, rng)
            .into_iter()
            .map(|position| &ATTRIBUTES[position])
            .collect();
        let mut values = vec![Vec::with_capacity(attributes.len()); people.len()];
        for attribute in &attributes {
            let drawn = draw_distinct(attribute.values.len(), people.len(), rng);
            for (of_person, position) in values.iter_mut().zip(drawn) {
                of_person.push(attribute.values[position]);
            }
        }
        Self { people, attributes, values }
    }

    /// Every fact once, in sentences of one or two.
    fn sentences(&self, config: &GeneratorConfig, rng: &mut ChaCha8Rng) -> Vec<Sentence> {
        let mut sentences = Vec::new();
        for person in draw_distinct(self.people.len(), self.people.len(), rng) {
            let order = draw_distinct(self.attributes.len(), self.attributes.len(), rng);
            let mut of_person = Vec::new();
            let mut rest = order.as_slice();
            while !rest.is_empty() {
                let paired = rest.len() >= 2 && rng.random_bool(config.pair_probability);
                let (now, later) = rest.split_at(if paired { 2 } else { 1 });
                of_person.push(Sentence { person, attributes: now.to_vec() });
                rest = later;
            }
            // Else the pair would always come before the single fact.
            of_person.shuffle(rng);
            sentences.append(&mut of_person);
        }
        match config.order {
            SentenceOrder::Grouped => {}
            SentenceOrder::Shuffled => sentences.shuffle(rng),
        }
        sentences
    }

    /// The context, and `starts[person][attribute]`: where each value begins in it.
    fn tell(&self, config: &GeneratorConfig, rng: &mut ChaCha8Rng) -> (String, Vec<Vec<usize>>) {
        let sentences = self.sentences(config, rng);
        let filler_at = rng.random_bool(config.filler_probability).then(|| draw_below(sentences.len() + 1, rng));
        let mut text = Text::default();
        let mut starts = vec![vec![0; self.attributes.len()]; self.people.len()];
        let mut is_known = vec![false; self.people.len()];
        for (position, sentence) in sentences.iter().enumerate() {
            if filler_at == Some(position) {
                text.push(pick(&FILLERS, rng));
                text.push(" ");
            }
            let person = self.people[sentence.person];
            let name = if is_known[sentence.person] { person.called(config, rng) } else { person.full_name() };
            is_known[sentence.person] = true;
            self.tell_sentence(sentence, &name, &mut text, &mut starts, rng);
            if position + 1 < sentences.len() {
                text.push(" ");
            }
        }
        if filler_at == Some(sentences.len()) {
            text.push(" ");
            text.push(pick(&FILLERS, rng));
        }
        (text.text, starts)
    }

    fn tell_sentence(
        &self,
        sentence: &Sentence,
        name: &str,
        text: &mut Text,
        starts: &mut [Vec<usize>],
        rng: &mut ChaCha8Rng,
    ) {
        let person = sentence.person;
        let mut tell = |text: &mut Text, position: usize, template: &str| {
            let value = self.values[person][position];
            if let Some(start) = text.push_template(template, name, value) {
                starts[person][position] = start;
            }
        };
        let attribute = |position: usize| self.attributes[position];
        match *sentence.attributes.as_slice() {
            [only] => {
                let predicates = attribute(only).predicates;
                let sentences = attribute(only).sentences;
                let chosen = draw_below(predicates.len() + sentences.len(), rng);
                if let Some(predicate) = predicates.get(chosen) {
                    text.push(name);
                    text.push(" ");
                    tell(text, only, predicate);
                    text.push(".");
                } else {
                    tell(text, only, sentences[chosen - predicates.len()]);
                }
            }
            [first, second] => {
                let is_appositive = rng.random_bool(0.25);
                text.push(name);
                text.push(if is_appositive { ", who " } else { " " });
                tell(text, first, pick(attribute(first).predicates, rng));
                text.push(if is_appositive { ", " } else { " and " });
                tell(text, second, pick(attribute(second).predicates, rng));
                text.push(".");
            }
            _ => unreachable!("a sentence tells one fact or two"),
        }
    }
}

/// Paragraph `index` of the corpus.
pub(super) fn draw_paragraph(config: &GeneratorConfig, index: usize, rng: &mut ChaCha8Rng) -> Paragraph {
    let facts = Facts::draw(config, rng);
    let (context, starts) = facts.tell(config, rng);
    let asked = draw_distinct(facts.people.len() * facts.attributes.len(), config.questions, rng);
    let questions = asked
        .into_iter()
        .enumerate()
        .map(|(number, fact)| {
            let person = fact / facts.attributes.len();
            let position = fact % facts.attributes.len();
            let template = pick(facts.attributes[position].questions, rng);
            let answer = Answer { text: facts.values[person][position].to_owned(), start: starts[person][position] };
            let is_impossible = rng.random_bool(config.unanswerable_probability);
            let name = if is_impossible {
                draw_person(config.split, &facts.people, rng).full_name()
            } else {
                facts.people[person].called(config, rng)
            };
            let mut question = Text::default();
            question.push_template(template, &name, "");
            let (answers, plausible_answers) =
                if is_impossible { (Vec::new(), vec![answer]) } else { (vec![answer], Vec::new()) };
            Question {
                id: format!("{}-{}-{index}-{number}", config.split.name(), config.seed),
                question: question.text,
                answers,
                plausible_answers,
                is_impossible,
            }
        })
        .collect();
    Paragraph { context, questions }
}
