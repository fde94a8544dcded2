//! The names that a plan may use, for messages about those that it may not.

use std::collections::BTreeSet;

/// Names that a message lists; of more, the first ones and the last.
const LISTED: usize = 16;

/// The blocks and sub-modules of a model, in the order of its sites, each once.
pub(super) struct KnownNames<'a> {
    blocks: Vec<&'a str>,
    sub_modules: Vec<&'a str>,
}

impl<'a> KnownNames<'a> {
    /// Those of a model's sites: a block ends at the first part of a name that is a number.
    pub(super) fn of(sites: impl Iterator<Item = &'a str>) -> Self {
        let (mut blocks, mut sub_modules) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for site in sites {
            let [block, sub_module] = parts(site);
            for (name, names) in [(block, &mut blocks), (sub_module, &mut sub_modules)] {
                if !name.is_empty() && seen.insert(name) {
                    names.push(name);
                }
            }
        }
        Self { blocks, sub_modules }
    }

    /// The blocks.
    pub(super) fn blocks(&self) -> String {
        list(self.blocks.iter().copied())
    }

    /// The sub-modules.
    pub(super) fn sub_modules(&self) -> String {
        list(self.sub_modules.iter().copied())
    }

    /// How the name of a site is made.
    pub(super) fn sites(&self) -> String {
        if self.blocks.is_empty() {
            return self.sub_modules();
        }
        format!("a block ({}) and a sub-module ({}) with a dot between", self.blocks(), self.sub_modules())
    }
}

/// The block of a site and the rest of its name.
fn parts(site: &str) -> [&str; 2] {
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()) && !part.is_empty();
    let mut end = 0;
    for part in site.split('.') {
        end += part.len();
        if is_number(part) {
            return [&site[..end], site.get(end + 1..).unwrap_or_default()];
        }
        end += 1;
    }
    ["", site]
}

/// `` `h.0`, `h.1`, …, `h.11` ``
pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.len() > LISTED {
        names.splice(LISTED - 2..names.len() - 1, ["…".to_owned()]);
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A dotted name and what remains of it as parts are dropped from its end, the longest first.
pub(super) fn prefixes(site: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(site), |name| name.rsplit_once('.').map(|(rest, _)| rest))
}

/// A dotted name and what remains of it as parts are dropped from its start, the longest first.
pub(super) fn suffixes(site: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(site), |name| name.split_once('.').map(|(_, rest)| rest))
}
