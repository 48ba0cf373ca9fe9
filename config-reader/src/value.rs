//! The tree of a document as serde sees it, without the nodes already refused. Knows serde; does not
//! know what becomes of a refusal.
//!
//! Stricter than the `toml` crate's own deserializer in one point: an array is not taken for a table
//! by the order of its elements. And a refusal says which node it is about.

use std::collections::HashSet;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use serde_spanned::de::{SpannedDeserializer, is_spanned};
use toml::Spanned;
use toml::de::{DeFloat, DeInteger, DeValue, ValueDeserializer};

use crate::outline::{ARRAY, Outline, ROOT, Step};
use crate::refusal::Refusal;

/// A document without the nodes that were refused.
pub(crate) struct Tree<'a> {
    pub(crate) outline: &'a Outline,
    /// The scalar of each node.
    pub(crate) values: &'a [Option<&'a DeValue<'a>>],
    pub(crate) removed: &'a HashSet<usize>,
}

/// One node of it.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    tree: &'a Tree<'a>,
    at: usize,
}

impl<'a> Value<'a> {
    pub(crate) fn root(tree: &'a Tree<'a>) -> Self {
        Self { tree, at: ROOT }
    }

    fn children(self) -> Children<'a> {
        let children = self.tree.outline.node(self.at).children.iter();
        Children { tree: self.tree, rest: children, value: None }
    }

    fn is_array(self) -> bool {
        self.tree.outline.node(self.at).kind == ARRAY
    }
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let outcome = match self.tree.values[self.at] {
            None if self.is_array() => visitor.visit_seq(self.children()),
            None => visitor.visit_map(self.children()),
            Some(DeValue::String(text)) => visitor.visit_str(text),
            Some(DeValue::Boolean(value)) => visitor.visit_bool(*value),
            Some(DeValue::Integer(number)) => visit_integer(number, visitor),
            Some(DeValue::Float(number)) => visit_float(number, visitor),
            // How a date passes through serde is an agreement between toml's own types.
            Some(date @ (DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_))) => {
                ValueDeserializer::from(Spanned::new(0..0, (*date).clone()))
                    .deserialize_any(visitor)
                    .map_err(|error| Refusal::custom(error.message()))
            }
        };
        outcome.map_err(|refusal| refusal.at(self.at))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self).map_err(|refusal| refusal.at(self.at))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self).map_err(|refusal| refusal.at(self.at))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        if is_spanned(name) {
            let span = self.tree.outline.node(self.at).span.clone();
            visitor.visit_map(SpannedDeserializer::new(self, span)).map_err(|refusal| refusal.at(self.at))
        } else if self.is_array() {
            Err(Refusal::invalid_type(Unexpected::Seq, &"a table").at(self.at))
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let outcome = match self.tree.values[self.at] {
            Some(DeValue::String(text)) => visitor.visit_enum(text.as_ref().into_deserializer()),
            None if !self.is_array() => visitor.visit_enum(MapAccessDeserializer::new(self.children())),
            _ => Err(Refusal::invalid_type(Unexpected::Other("value"), &"a string")),
        };
        outcome.map_err(|refusal| refusal.at(self.at))
    }

    forward_to_deserialize_any! {
        bool u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 char str string seq
        bytes byte_buf map unit ignored_any unit_struct tuple_struct tuple identifier
    }
}

impl<'de> IntoDeserializer<'de, Refusal> for Value<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The entries of a table or the elements of an array.
struct Children<'a> {
    tree: &'a Tree<'a>,
    rest: std::slice::Iter<'a, usize>,
    /// The node whose key was read last.
    value: Option<usize>,
}

impl Children<'_> {
    fn advance(&mut self) -> Option<usize> {
        self.rest.by_ref().copied().find(|child| !self.tree.removed.contains(child))
    }
}

impl<'de> MapAccess<'de> for Children<'de> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        self.value = self.advance();
        let Some(at) = self.value else { return Ok(None) };
        let key: &str = match &self.tree.outline.node(at).step {
            Step::Key { name, .. } => name,
            Step::Root | Step::Index(_) => "",
        };
        let key: serde::de::value::StrDeserializer<'_, Refusal> = key.into_deserializer();
        seed.deserialize(key).map(Some).map_err(|refusal| refusal.at(at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let at = self.value.take().ok_or_else(|| Refusal::custom("a value was read before its key"))?;
        seed.deserialize(Value { tree: self.tree, at }).map_err(|refusal| refusal.at(at))
    }
}

impl<'de> SeqAccess<'de> for Children<'de> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refusal> {
        let Some(at) = self.advance() else { return Ok(None) };
        seed.deserialize(Value { tree: self.tree, at }).map(Some).map_err(|refusal| refusal.at(at))
    }
}

fn visit_integer<'de, V: Visitor<'de>>(number: &DeInteger<'_>, visitor: V) -> Result<V::Value, Refusal> {
    let (digits, radix) = (number.as_str(), number.radix());
    if let Ok(number) = i64::from_str_radix(digits, radix) {
        visitor.visit_i64(number)
    } else if let Ok(number) = u64::from_str_radix(digits, radix) {
        visitor.visit_u64(number)
    } else {
        Err(Refusal::custom("this number is too large"))
    }
}

fn visit_float<'de, V: Visitor<'de>>(number: &DeFloat<'_>, visitor: V) -> Result<V::Value, Refusal> {
    match number.as_str().parse::<f64>() {
        Ok(value) if value.is_finite() || !number.as_str().ends_with(|c: char| c.is_ascii_digit()) => {
            visitor.visit_f64(value)
        }
        _ => Err(Refusal::custom("this number is too large")),
    }
}
