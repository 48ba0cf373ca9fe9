//! Which dotted path every place of a document has. Knows the shape of the tree, no value of it.

use std::fmt::Write;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The tree of a document as a list of nodes, parents before children; the first is the document.
#[derive(Clone)]
pub(crate) struct Outline {
    nodes: Vec<Node>,
}

/// One table, array or scalar.
#[derive(Clone)]
pub(crate) struct Node {
    /// The table or array that holds it; the document holds itself.
    pub(crate) parent: usize,
    pub(crate) step: Step,
    /// Bytes of the value. A table under a header stands at its header; the document at `0..0`.
    pub(crate) span: Range<usize>,
    /// What it is, in words that follow "found".
    pub(crate) kind: &'static str,
    pub(crate) children: Vec<usize>,
}

/// How a node is reached from its parent.
#[derive(Clone)]
pub(crate) enum Step {
    Root,
    Key { name: Box<str>, span: Range<usize> },
    Index(usize),
}

/// The document itself.
pub(crate) const ROOT: usize = 0;

impl Outline {
    /// The outline, and beside it what each node holds (scalars only; `None` for tables and arrays).
    pub(crate) fn of<'a, 'i>(root: &'a DeTable<'i>) -> (Self, Vec<Option<&'a DeValue<'i>>>) {
        let document =
            Node { parent: ROOT, step: Step::Root, span: 0..0, kind: "a table", children: Vec::new() };
        let mut outline = Self { nodes: vec![document] };
        let mut values = vec![None];
        outline.walk_table(ROOT, root, &mut values);
        (outline, values)
    }

    pub(crate) fn node(&self, at: usize) -> &Node {
        &self.nodes[at]
    }

    /// The node whose value or key is at exactly `span`, else the smallest one around it. An array of
    /// tables and its first table stand at the same place: the table wins.
    pub(crate) fn find(&self, span: &Range<usize>) -> usize {
        if *span == (0..0) {
            return ROOT;
        }
        let exact = |node: &Node| {
            node.span == *span || matches!(&node.step, Step::Key { span: key, .. } if key == span)
        };
        self.nodes.iter().rposition(exact).unwrap_or_else(|| {
            let nodes = self.nodes.iter().enumerate();
            let around = nodes.filter(|(_, node)| node.span.start <= span.start && span.end <= node.span.end);
            around.min_by_key(|(_, node)| node.span.len()).map_or(ROOT, |(at, _)| at)
        })
    }

    /// `ingress[2].hostname`; keys that are not bare are quoted. `None` for the document itself.
    pub(crate) fn path(&self, mut at: usize) -> Option<String> {
        let mut steps = Vec::new();
        while at != ROOT {
            steps.push(&self.nodes[at].step);
            at = self.nodes[at].parent;
        }
        let mut path = String::new();
        for step in steps.iter().rev() {
            match step {
                Step::Root => {}
                Step::Index(index) => write!(path, "[{index}]").expect("a String takes every write"),
                Step::Key { name, .. } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    if is_bare(name) {
                        path.push_str(name);
                    } else {
                        write!(path, "{name:?}").expect("a String takes every write");
                    }
                }
            }
        }
        (!path.is_empty()).then_some(path)
    }

    fn walk_table<'a, 'i>(
        &mut self,
        parent: usize,
        table: &'a DeTable<'i>,
        values: &mut Vec<Option<&'a DeValue<'i>>>,
    ) {
        for (key, value) in table {
            let step = Step::Key { name: key.get_ref().as_ref().into(), span: key.span() };
            self.push(parent, step, value.span(), value.get_ref(), values);
        }
    }

    fn push<'a, 'i>(
        &mut self,
        parent: usize,
        step: Step,
        span: Range<usize>,
        value: &'a DeValue<'i>,
        values: &mut Vec<Option<&'a DeValue<'i>>>,
    ) {
        let at = self.nodes.len();
        self.nodes.push(Node { parent, step, span, kind: kind(value), children: Vec::new() });
        self.nodes[parent].children.push(at);
        match value {
            DeValue::Table(table) => {
                values.push(None);
                self.walk_table(at, table, values);
            }
            DeValue::Array(array) => {
                values.push(None);
                for (index, element) in array.iter().enumerate() {
                    self.push(at, Step::Index(index), element.span(), element.get_ref(), values);
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => values.push(Some(value)),
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => ARRAY,
        DeValue::Table(_) => "a table",
    }
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The [`kind`](Node::kind) of arrays.
pub(crate) const ARRAY: &str = "an array";
