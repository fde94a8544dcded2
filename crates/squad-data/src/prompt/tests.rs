use super::*;
use crate::dataset::Answer;
use crate::tokenizer::BpeConfig;

fn example(question: &str, context: &str) -> Example {
    Example {
        id: "q1".to_owned(),
        context: context.into(),
        question: question.to_owned(),
        answers: vec![Answer { text: context[..1].to_owned(), start: 0 }],
        is_impossible: false,
    }
}

fn tokenizer() -> TextTokenizer {
    TextTokenizer::train_bpe(["Context: Question: Answer:"; 3], &BpeConfig::default()).unwrap()
}

#[test]
fn placeholders_in_the_texts_stay_as_they_are() {
    let example = example("{context}?", "a {question} b");
    for (template, expected) in [
        ("{context}|{question}", "a {question} b|{context}?"),
        ("<{question}> <{context}>", "<{context}?> <a {question} b>"),
    ] {
        assert_eq!(PromptTemplate::new(template).unwrap().render(&example), expected);
    }
}

#[test]
fn templates_need_each_placeholder_once() {
    for template in ["{context}", "{question}", "{context}{question}{question}", ""] {
        assert!(PromptTemplate::new(template).is_err(), "{template}");
    }
}

#[test]
fn a_word_in_braces_that_is_no_placeholder_is_named() {
    for (template, unknown) in [
        ("{context} {question} {answr}", "`{answr}`"),
        ("{contxt} {question}", "`{contxt}`"),
        ("{context} {Question}", "`{Question}`"),
        ("{ context } {question}", "`{ context }`"),
    ] {
        let message = PromptTemplate::new(template).unwrap_err().to_string();
        assert!(message.starts_with("template: ") && message.contains(unknown), "{message}");
    }
    // Braces that hold no word are text.
    for template in
        ["{} {context} {question}", "{\"a\": {context}, \"q\": {question}}", "f(x) { {context} } {question} {"]
    {
        PromptTemplate::new(template).unwrap();
    }
}

#[test]
fn a_training_text_ends_with_the_answer() {
    let mut example = example("What?", "tea");
    let template = PromptTemplate::default();
    assert_eq!(template.render_with_answer(&example), "Context: tea\nQuestion: What?\nAnswer: t");
    example.answers.clear();
    assert_eq!(template.render_with_answer(&example), template.render(&example));
}

#[test]
fn a_generated_answer_ends_at_the_first_stop() {
    let template = PromptTemplate::default();
    assert_eq!(template.cut("  tea with milk \nQuestion:"), "tea with milk");
    assert_eq!(template.cut("\n tea with milk"), "", "a line that ends at once is no answer");
    assert_eq!(template.cut(" tea"), "tea");
    assert_eq!(template.cut(" \n"), "");
    let template = template.with_stops(["<eos>", ".", ""]);
    assert_eq!(template.cut("tea\nand milk. <eos>"), "tea\nand milk");
    assert_eq!(template.cut("🍵<eos>."), "🍵");
}

#[test]
fn a_long_context_loses_its_end_and_the_question_stays() {
    let tokenizer = tokenizer();
    let template = PromptTemplate::default();
    let example = example("What does Zoë drink?", &"Zoë drinks 🍵 every day. ".repeat(20));
    let whole = template.encode(&tokenizer, &example, usize::MAX).unwrap().ids;
    assert_eq!(tokenizer.decode(&whole).unwrap().trim_start(), template.render(&example));
    let least = tokenizer.encode(&template.fill("", &example.question)).unwrap().ids.len();
    for most in [least, least + 1, least + 7, 100, 200, whole.len() - 1, whole.len()] {
        let EncodedPrompt { ids, context, .. } = template.encode(&tokenizer, &example, most).unwrap();
        assert!(ids.len() <= most && ids.len() + 8 > most, "{} of {most}", ids.len());
        let text = tokenizer.decode(&ids).unwrap();
        let kept = text.trim_start().strip_prefix("Context: ").unwrap();
        let kept = kept.strip_suffix("\nQuestion: What does Zoë drink?\nAnswer:").unwrap();
        assert!(example.context.starts_with(kept) && kept.chars().count() == context, "{kept}");
    }
    let error = template.encode(&tokenizer, &example, least - 1).unwrap_err().to_string();
    assert!(error.starts_with("question `q1`: expected a prompt of at most "), "{error}");
}

#[test]
fn an_answer_has_ended_where_its_first_stop_stands() {
    let template = PromptTemplate::default();
    for (text, has_ended) in [("", false), ("  ", false), (" tea", false), (" tea\n", true), ("\n", true)] {
        assert_eq!(template.is_complete(text), has_ended, "{text:?}");
    }
    assert!(!PromptTemplate::default().with_stops([""]).is_complete("tea\n"));
}

#[test]
fn shots_stand_before_every_prompt_with_their_answers() {
    let shots = [example("A?", "ab"), Example { answers: Vec::new(), is_impossible: true, ..example("B?", "cd") }];
    let template = PromptTemplate::new("{context} {question}").unwrap().with_shots(&shots);
    let asked = example("C?", "ef");
    assert_eq!(template.render(&asked), "ab A? a\n\ncd B?\n\nef C?");
    assert_eq!(template.clone().with_shots(&shots[..1]).render(&asked), "ab A? a\n\nef C?");
    assert_eq!(template.with_shots(&[]).render(&asked), "ef C?");
    let template = PromptTemplate::default();
    assert_eq!([&asked, &shots[1]].map(|example| template.continuation(example)), [" e\n", "\n"]);
}
