use std::collections::{BTreeMap, BTreeSet};

use super::attributes::{ATTRIBUTES, FILLERS};
use super::names::{FAMILY, GIVEN, split_of};
use super::*;
use crate::tokenizer::{BpeConfig, SpecialTokens, TextTokenizer};
use crate::windows::{SpanConfig, SpanFeatures};

fn corpus(split: Split, paragraphs: usize, seed: u64) -> Dataset {
    generate(&GeneratorConfig::new(split, paragraphs, seed)).unwrap()
}

/// The full names of a text, as positions in the lists of names.
fn full_names(text: &str) -> Vec<(usize, usize)> {
    let words: Vec<&str> = text
        .split_whitespace()
        .map(|word| word.trim_end_matches("'s").trim_matches(['.', ',', '?']))
        .map(|word| word.trim_end_matches("'s"))
        .collect();
    words
        .windows(2)
        .filter_map(|pair| {
            let given = GIVEN.iter().position(|name| *name == pair[0])?;
            let family = FAMILY.iter().position(|name| *name == pair[1])?;
            Some((given, family))
        })
        .collect()
}

fn names_of(dataset: &Dataset) -> BTreeSet<(usize, usize)> {
    corpus_texts(dataset).into_iter().flat_map(full_names).collect()
}

#[test]
fn train_and_dev_share_parts_of_names_but_no_full_name() {
    let train = names_of(&corpus(Split::Train, 3_000, 1));
    let dev = names_of(&corpus(Split::Dev, 1_000, 1));
    assert!(train.len() > 2_500, "{} names", train.len());
    assert!(dev.len() > 600, "{} names", dev.len());
    assert_eq!(train.intersection(&dev).count(), 0);
    for names in [&train, &dev] {
        let given: BTreeSet<usize> = names.iter().map(|name| name.0).collect();
        let family: BTreeSet<usize> = names.iter().map(|name| name.1).collect();
        assert_eq!(given.len(), GIVEN.len());
        assert_eq!(family.len(), FAMILY.len());
    }
}

#[test]
fn one_name_in_five_is_held_out() {
    let pairs = (0..GIVEN.len()).flat_map(|g| (0..FAMILY.len()).map(move |f| (g, f)));
    let held_out = pairs.filter(|&(g, f)| split_of(g, f) == Split::Dev).count();
    assert!((650..=790).contains(&held_out), "{held_out} of 3600");
}

#[test]
fn a_generated_corpus_is_a_valid_file() {
    for unanswerable_probability in [0.0, 0.4] {
        let config = GeneratorConfig { unanswerable_probability, ..GeneratorConfig::new(Split::Train, 120, 5) };
        let dataset = generate(&config).unwrap();
        let read = Dataset::from_json(&dataset.to_json(), "corpus.json").unwrap();
        assert_eq!(read, dataset);
        assert_eq!(dataset.articles.len(), 3);
    }
}

#[test]
fn every_question_has_the_other_peoples_values_as_distractors() {
    for example in corpus(Split::Dev, 300, 3).examples() {
        let answer = &example.answers[0].text;
        let attribute = ATTRIBUTES
            .iter()
            .find(|attribute| attribute.values.contains(&answer.as_str()))
            .expect("the answer is a value of an attribute");
        let told = attribute.values.iter().filter(|value| {
            let bounded = format!(" {value}");
            example
                .context
                .match_indices(&bounded)
                .any(|(at, _)| example.context[at + bounded.len()..].starts_with([' ', '.', ',']))
        });
        assert!(told.count() >= 3, "{}: {}", example.id, example.context);
    }
}

#[test]
fn people_of_a_paragraph_share_no_part_of_their_names() {
    for article in corpus(Split::Train, 300, 9).articles {
        for paragraph in article.paragraphs {
            let people: BTreeSet<_> = full_names(&paragraph.context).into_iter().collect();
            assert_eq!(people.len(), 3, "{}", paragraph.context);
            let given: BTreeSet<_> = people.iter().map(|p| p.0).collect();
            let family: BTreeSet<_> = people.iter().map(|p| p.1).collect();
            assert_eq!((given.len(), family.len()), (3, 3));
        }
    }
}

#[test]
fn names_stand_before_values_in_every_template() {
    for attribute in &ATTRIBUTES {
        assert!(attribute.predicates.len() + attribute.sentences.len() >= 5);
        assert!(attribute.questions.len() >= 5);
        for sentence in attribute.sentences {
            let name = sentence.find("{name}").unwrap();
            let value = sentence.find("{value}").unwrap();
            assert!(name < value, "{sentence}");
            assert_eq!(sentence.matches("{name}").count(), 1, "{sentence}");
        }
        for predicate in attribute.predicates {
            assert!(!predicate.contains("{name}"), "{predicate}");
        }
        for template in attribute.predicates.iter().chain(attribute.sentences) {
            assert_eq!(template.matches("{value}").count(), 1, "{template}");
        }
        for question in attribute.questions {
            assert_eq!(question.matches("{name}").count(), 1, "{question}");
            assert!(!question.contains("{value}"), "{question}");
            assert!(question.ends_with('?'), "{question}");
        }
    }
}

#[test]
fn no_wording_occurs_twice_for_an_attribute() {
    for attribute in &ATTRIBUTES {
        for wordings in [attribute.predicates, attribute.sentences, attribute.questions] {
            let different: BTreeSet<_> = wordings.iter().collect();
            assert_eq!(different.len(), wordings.len());
        }
    }
    let questions: Vec<_> = ATTRIBUTES.iter().flat_map(|a| a.questions).collect();
    let different: BTreeSet<_> = questions.iter().collect();
    assert_eq!(different.len(), questions.len(), "a question of two attributes");
}

#[test]
fn values_are_unambiguous() {
    let mut owner: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, attribute) in ATTRIBUTES.iter().enumerate() {
        assert!((20..=40).contains(&attribute.values.len()));
        for value in attribute.values {
            assert!((1..=3).contains(&value.split(' ').count()), "{value}");
            assert_eq!(owner.insert(value, position), None, "{value} occurs twice");
            assert!(!GIVEN.contains(value) && !FAMILY.contains(value), "{value}");
            let longer = format!("{value} ");
            let begun = attribute.values.iter().find(|v| v.starts_with(&longer));
            assert_eq!(begun, None, "{value} begins another value");
        }
    }
    let names: BTreeSet<_> = GIVEN.iter().chain(&FAMILY).collect();
    assert_eq!(names.len(), GIVEN.len() + FAMILY.len());
}

#[test]
fn a_longer_corpus_begins_with_a_shorter_one() {
    let short = corpus(Split::Train, 40, 11).examples();
    let long = corpus(Split::Train, 90, 11).examples();
    assert_eq!(long[..short.len()], short);
    assert_ne!(corpus(Split::Train, 40, 12).examples(), short);
}

#[test]
fn a_seed_means_the_same_corpus_on_every_platform() {
    let example = &corpus(Split::Dev, 1, 2024).examples()[0];
    assert_eq!(example.id, "dev-2024-0-0");
    assert_eq!((&*example.context, example.question.as_str()), (PINNED_CONTEXT, PINNED_QUESTION));
}

const PINNED_CONTEXT: &str = "Nadia Keller looks after a parrot and starts the day with tea. \
    Kira Ford has an otter as a pet and works as a painter. \
    Oscar Cliff has a job as a fire fighter and orders cocoa in every bar. \
    Oscar Cliff has a goat as a pet. The job of Nadia Keller is that of a pilot. \
    Kira Ford's favourite drink is tonic.";
const PINNED_QUESTION: &str = "What is Kira Ford's job?";

#[test]
fn inputs_of_the_default_corpus_are_short() {
    let train = corpus(Split::Train, 2_000, 1);
    let tokenizer = TextTokenizer::train_bpe(corpus_texts(&train), &BpeConfig::default()).unwrap();
    let separator = SpecialTokens::of(&tokenizer).unwrap().separator;
    let examples = corpus(Split::Dev, 1_000, 2).examples();
    let config = SpanConfig::new(512, separator);
    let features = SpanFeatures::new(&tokenizer, &examples, &config).unwrap();
    let lengths: Vec<usize> = features.windows().iter().map(|w| w.ids.len()).collect();
    let mean = lengths.iter().sum::<usize>() / lengths.len();
    assert!(lengths.iter().all(|&len| len <= 120), "{:?}", lengths.iter().max());
    assert!((70..=100).contains(&mean), "mean {mean}");
}

#[test]
fn grouped_sentences_of_a_person_stand_in_a_row() {
    let config = GeneratorConfig {
        order: SentenceOrder::Grouped,
        given_name_probability: 0.0,
        filler_probability: 0.0,
        ..GeneratorConfig::new(Split::Train, 50, 4)
    };
    for article in generate(&config).unwrap().articles {
        for paragraph in article.paragraphs {
            let mut runs = full_names(&paragraph.context);
            runs.dedup();
            assert_eq!(runs.len(), 3, "{}", paragraph.context);
        }
    }
}

#[test]
fn probabilities_of_one_take_effect_everywhere() {
    let config =
        GeneratorConfig { filler_probability: 1.0, pair_probability: 1.0, ..GeneratorConfig::new(Split::Train, 50, 4) };
    for article in generate(&config).unwrap().articles {
        for paragraph in article.paragraphs {
            let sentences = paragraph.context.matches('.').count();
            assert_eq!(sentences, 3 * 2 + 1, "{}", paragraph.context);
            assert!(FILLERS.iter().any(|f| paragraph.context.contains(f)));
            assert!(!paragraph.context.contains("  "));
        }
    }
}

#[test]
fn unanswerable_questions_ask_about_somebody_else() {
    let config = GeneratorConfig { unanswerable_probability: 0.5, ..GeneratorConfig::new(Split::Dev, 200, 6) };
    let dataset = generate(&config).unwrap();
    assert_eq!(dataset.format, Format::V2);
    let mut impossible = 0;
    for article in &dataset.articles {
        for paragraph in &article.paragraphs {
            let told: BTreeSet<_> = full_names(&paragraph.context).into_iter().collect();
            for question in &paragraph.questions {
                let asked = full_names(&question.question);
                if question.is_impossible {
                    impossible += 1;
                    assert!(question.answers.is_empty());
                    assert_eq!(question.plausible_answers.len(), 1);
                    assert!(!told.contains(&asked[0]), "{}", question.question);
                } else {
                    assert!(asked.iter().all(|name| told.contains(name)));
                }
            }
        }
    }
    assert!((240..=360).contains(&impossible), "{impossible} of 600");
}

#[test]
fn a_field_out_of_range_is_named() {
    let good = GeneratorConfig::new(Split::Train, 1, 1);
    let bad = [
        (GeneratorConfig { paragraphs: 0, ..good }, "paragraphs: expected 1 to "),
        (GeneratorConfig { entities: 21, ..good }, "entities: expected 1 to 20, got 21"),
        (GeneratorConfig { attributes: 13, ..good }, "attributes: expected 1 to 12, got 13"),
        (GeneratorConfig { questions: 10, ..good }, "questions: expected 1 to 9, got 10"),
        (GeneratorConfig { pair_probability: f64::NAN, ..good }, "pair_probability: expected 0 to 1, got NaN"),
        (GeneratorConfig { filler_probability: 1.5, ..good }, "filler_probability: expected 0 to 1, got 1.5"),
    ];
    for (config, message) in bad {
        let error = generate(&config).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn the_largest_paragraphs_can_be_made() {
    let config = GeneratorConfig {
        entities: MAX_ENTITIES,
        attributes: ATTRIBUTES.len(),
        questions: MAX_ENTITIES * ATTRIBUTES.len(),
        ..GeneratorConfig::new(Split::Dev, 2, 1)
    };
    assert_eq!(generate(&config).unwrap().len(), 2 * 240);
}
