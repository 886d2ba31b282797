//! JSON as indented `name: value` lines, members in the order in which they come, empty ones left out.

use std::fmt::{self, Write as _};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value that keeps the order of members, which `serde_json::Value` does not.
enum Node {
    Nothing,
    Text(String),
    Items(Vec<Self>),
    Members(Vec<(String, Self)>),
}

pub(super) fn render(json: &str) -> serde_json::Result<String> {
    let mut text = String::new();
    serde_json::from_str::<Node>(json)?.write(&mut text, 0);
    Ok(text)
}

impl Node {
    fn write(&self, text: &mut String, depth: usize) {
        let Self::Members(members) = self else { return };
        let margin = "  ".repeat(depth);
        for (name, member) in members {
            let name = name.replace('_', " ");
            match member {
                Self::Members(inner) if !inner.is_empty() => {
                    let _infallible = writeln!(text, "{margin}{name}:");
                    member.write(text, depth + 1);
                }
                Self::Items(items) if items.iter().any(|item| matches!(item, Self::Members(_))) => {
                    let _infallible = writeln!(text, "{margin}{name}:");
                    items.iter().for_each(|item| item.write_item(text, depth + 2));
                }
                _ => {
                    if let Some(shown) = member.inline() {
                        let _infallible = writeln!(text, "{margin}{name}: {shown}");
                    }
                }
            }
        }
    }

    /// The first line of an item carries a dash in its margin.
    fn write_item(&self, text: &mut String, depth: usize) {
        let mut item = String::new();
        self.write(&mut item, depth);
        if let Some(line) = item.strip_prefix(&"  ".repeat(depth)) {
            let _infallible = write!(text, "{}- {line}", "  ".repeat(depth - 1));
        }
    }

    fn inline(&self) -> Option<String> {
        match self {
            Self::Nothing | Self::Members(_) => None,
            Self::Text(text) => (!text.is_empty()).then(|| text.clone()),
            Self::Items(items) => {
                let shown: Vec<String> = items.iter().filter_map(Self::inline).collect();
                (!shown.is_empty()).then(|| shown.join(", "))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Node, E> {
        Ok(Node::Text(if truth { "yes" } else { "no" }.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Text(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Text(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Text(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Ok(Node::Items(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = members.next_entry()? {
            all.push(member);
        }
        Ok(Node::Members(all))
    }
}
