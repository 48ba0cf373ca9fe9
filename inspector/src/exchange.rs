//! One exchange as it is kept: texts without secrets, and times. Made by whoever has seen it; does not change.

use serde::Serialize;

/// A request, its answer, and how long what took.
#[derive(Debug, Clone, Serialize)]
pub struct Exchange {
    /// Of this process, ascending.
    pub number: u64,
    /// The request's, as logs have it.
    pub id: String,
    /// When it began, milliseconds since 1970.
    pub started: u64,
    pub generation: u64,
    /// Empty where none matched.
    pub rule: String,
    pub method: String,
    pub scheme: String,
    pub host: String,
    /// Path and query.
    pub target: String,
    /// The address of the visitor; empty if unknown.
    pub visitor: String,
    /// 0 of a visitor who left before there was an answer.
    pub status: u16,
    /// `whole`, `broken off` or `cancelled`.
    pub outcome: String,
    /// The plugin that failed or answered, or what else became of the chain.
    pub plugins: String,
    /// From the head of the request to the end of the answer, microseconds.
    pub total: u64,
    /// In the order in which they began.
    pub stages: Vec<Stage>,
    pub request: Message,
    pub answer: Message,
}

/// Where time went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// `edge`, `tunnel`, `plugin NAME`, `origin`, `body`.
    pub name: String,
    /// Since the exchange began, microseconds; before it for what was before.
    pub at: i64,
    /// Microseconds.
    pub took: u64,
}

/// One way of an exchange.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Message {
    pub headers: Vec<(String, String)>,
    /// Headers, and bytes of their values, beyond what is kept.
    pub left_out: usize,
    pub body: Body,
    /// Secrets that were taken out, all in all.
    pub redacted: usize,
}

/// What is kept of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Body {
    /// There is none.
    #[default]
    Empty,
    /// Nobody asked for it, or it is nothing that can be kept.
    LeftOut {
        /// Its length.
        bytes: u64,
        why: &'static str,
    },
    Text {
        text: String,
        /// Its length, of which the text may be the beginning.
        bytes: u64,
        is_whole: bool,
    },
}

impl Exchange {
    /// What it takes in memory, roughly; never less than its texts.
    #[must_use]
    pub fn size(&self) -> usize {
        let texts = [
            &self.id,
            &self.rule,
            &self.method,
            &self.scheme,
            &self.host,
            &self.target,
            &self.visitor,
            &self.outcome,
            &self.plugins,
        ];
        let stages = self.stages.iter().map(|stage| stage.name.len() + size_of::<Stage>());
        size_of::<Self>()
            + texts.iter().map(|text| text.len()).sum::<usize>()
            + stages.sum::<usize>()
            + self.request.size()
            + self.answer.size()
    }

    /// Of it all, what no stage has: microseconds.
    #[must_use]
    pub fn rest(&self) -> u64 {
        let stages = self.stages.iter().filter(|stage| stage.at >= 0).map(|stage| stage.took);
        self.total.saturating_sub(stages.sum())
    }
}

impl Message {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        headers.next().map(|(_, value)| value.as_str())
    }

    fn size(&self) -> usize {
        let text = match &self.body {
            Body::Text { text, .. } => text.len(),
            Body::Empty | Body::LeftOut { .. } => 0,
        };
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        headers.sum::<usize>() + self.headers.len() * size_of::<(String, String)>() + text
    }
}
