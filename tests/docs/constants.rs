//! The numbers that the product's sources name: every constant outside of tests that is a number, a time or a
//! range of one of them, evaluated, and those inside of a constant that is a record. Reads Rust; knows no page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr, ExprLit, Lit, Member, Type, UnOp};

use crate::value::Value;

/// A constant, or a field of one (`CLIENTS.most`).
#[derive(Debug, Clone)]
pub(crate) struct Constant {
    /// From the root of the workspace.
    pub(crate) file: String,
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What was found in the sources.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) constants: Vec<Constant>,
    /// Numbers that cannot be evaluated, each as a sentence.
    pub(crate) unknown: Vec<String>,
    /// Times and sizes that stand in code without a name, each with its place.
    pub(crate) nameless: Vec<String>,
}

/// Reads the product's crates below `root`.
pub(crate) fn read(root: &Path) -> Sources {
    let mut files = BTreeMap::new();
    for krate in crates(root) {
        gather(root, &format!("{krate}/src"), &mut files);
    }
    let mut raw = Vec::new();
    let mut nameless = Vec::new();
    let mut of_tests = BTreeSet::new();
    for (file, text) in &files {
        let mut reader = Reader { file, ..Reader::default() };
        reader.visit_file(&syn::parse_file(text).expect("a source file is Rust"));
        raw.append(&mut reader.found);
        nameless.append(&mut reader.nameless);
        of_tests.append(&mut reader.of_tests);
    }
    raw.retain(|raw| !is_of_tests(&raw.file, &of_tests));
    nameless.retain(|(file, _): &(String, String)| !is_of_tests(file, &of_tests));
    let mut sources =
        Sources { nameless: nameless.into_iter().map(|(_, what)| what).collect(), ..Sources::default() };
    let all = Names(&raw);
    for constant in &raw {
        let Raw { file, name, line, of, expression } = constant;
        let mut add = |name: String, value| {
            sources.constants.push(Constant { file: file.clone(), name, line: *line, value });
        };
        if let Expr::Struct(record) = expression {
            for field in &record.fields {
                if let (Member::Named(field_name), Some(value)) =
                    (&field.member, all.value(&field.expr, constant))
                {
                    add(format!("{name}.{field_name}"), value);
                }
            }
        } else if is_number(of) {
            match all.value(expression, constant) {
                Some(value) => add(name.clone(), value),
                None => sources.unknown.push(format!("{file}:{line}: {name} cannot be evaluated here")),
            }
        }
    }
    sources
}

/// The members of the workspace that are part of the product.
fn crates(root: &Path) -> Vec<String> {
    // What tries, measures and packs the product.
    const OTHERS: [&str; 5] = ["tests", "bench", "bench/plugins", "release", "xtask"];
    let text = fs::read_to_string(root.join("Cargo.toml")).expect("the workspace has a manifest");
    let manifest: toml::Table = text.parse().expect("a manifest is TOML");
    let members = manifest["workspace"]["members"].as_array().expect("a workspace has members");
    let members = members.iter().map(|member| member.as_str().expect("a member is a folder"));
    members.filter(|member| !OTHERS.contains(member)).map(str::to_owned).collect()
}

fn gather(root: &Path, folder: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(root.join(folder)).expect("a folder of the workspace").flatten() {
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        // What is generated there has numbers of the wire alone.
        if name == "protocol/src/schema" {
            continue;
        }
        if entry.path().is_dir() {
            gather(root, &name, files);
        } else if name.ends_with(".rs") {
            files.insert(name, fs::read_to_string(entry.path()).expect("a source file is text"));
        }
    }
}

/// A file, or one below a module, that is there for tests alone.
fn is_of_tests(file: &str, of_tests: &BTreeSet<String>) -> bool {
    let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
    of_tests.iter().any(|test| module == test || module.starts_with(&format!("{test}/")))
}

struct Raw {
    file: String,
    name: String,
    line: usize,
    of: Type,
    expression: Expr,
}

#[derive(Default)]
struct Reader<'a> {
    file: &'a str,
    found: Vec<Raw>,
    nameless: Vec<(String, String)>,
    /// Modules for tests that have a file of their own, as paths without an ending.
    of_tests: BTreeSet<String>,
    /// Modules around this place in the file.
    around: Vec<String>,
    /// How many constants are around this place.
    depth: usize,
}

impl Reader<'_> {
    fn constant(&mut self, name: &syn::Ident, of: &Type, expression: &Expr) {
        self.found.push(Raw {
            file: self.file.to_owned(),
            name: name.to_string(),
            line: name.span().start().line,
            of: of.clone(),
            expression: expression.clone(),
        });
        self.depth += 1;
        self.visit_expr(expression);
        self.depth -= 1;
    }

    fn nameless(&mut self, what: &str, at: proc_macro2::Span) {
        if self.depth == 0 {
            let place = format!("{}:{}", self.file, at.start().line);
            self.nameless.push((self.file.to_owned(), format!("{place}: {what}")));
        }
    }

    /// The folder where files of this file's modules are.
    fn below(&self) -> String {
        let path = self.file.trim_end_matches(".rs");
        let (folder, name) = path.rsplit_once('/').expect("a file lies in a folder");
        let is_root = matches!(name, "mod" | "lib" | "main");
        let mut below = if is_root { folder.to_owned() } else { path.to_owned() };
        for name in &self.around {
            below = format!("{below}/{name}");
        }
        below
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if !item.attrs.iter().any(is_for_tests) {
            self.constant(&item.ident, &item.ty, &item.expr);
        }
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.constant(&item.ident, &item.ty, &item.expr);
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.constant(&item.ident, &item.ty, &item.expr);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_for_tests = item.attrs.iter().any(is_for_tests);
        if item.content.is_none() && is_for_tests {
            let below = self.below();
            let named = item.attrs.iter().find_map(path_attribute);
            let folder = self.file.rsplit_once('/').map_or("", |(folder, _)| folder);
            self.of_tests.insert(match named {
                Some(path) => format!("{folder}/{}", path.trim_end_matches(".rs")),
                None => format!("{below}/{}", item.ident),
            });
        } else if !is_for_tests {
            self.around.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.around.pop();
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !item.attrs.iter().any(is_for_tests) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !item.attrs.iter().any(is_for_tests) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let (Expr::Path(path), [argument]) = (&*call.func, &*call.args.iter().collect::<Vec<_>>())
            && time_unit(&path.path).is_some()
            && literal(argument).is_some_and(|number| number > 1)
        {
            self.nameless("a time without a name", call.span());
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_binary(&mut self, both: &'ast syn::ExprBinary) {
        let is_size = match both.op {
            BinOp::Shl(_) => literal(&both.left).is_some() && literal(&both.right).is_some_and(|n| n > 7),
            BinOp::Mul(_) => [&both.left, &both.right].iter().any(|side| literal(side) == Some(1024)),
            _ => false,
        };
        if is_size {
            self.nameless("a size without a name", both.span());
        }
        visit::visit_expr_binary(self, both);
    }
}

fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) if pair.path.is_ident("path") => Some(text.value()),
        _ => None,
    }
}

fn is_for_tests(attribute: &syn::Attribute) -> bool {
    fn wants_test(meta: &syn::Meta) -> bool {
        match meta {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) if list.path.is_ident("all") => {
                let parser = syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated;
                list.parse_args_with(parser).is_ok_and(|all| all.iter().any(wants_test))
            }
            syn::Meta::List(_) | syn::Meta::NameValue(_) => false,
        }
    }
    attribute.path().is_ident("test")
        || attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Meta>().is_ok_and(|meta| wants_test(&meta))
}

/// Nanoseconds of what `Duration::from_…` counts.
fn time_unit(path: &syn::Path) -> Option<i128> {
    let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    match names.last_chunk()? {
        [of, from] if of == "Duration" => match from.as_str() {
            "from_secs" => Some(1_000_000_000),
            "from_millis" => Some(1_000_000),
            "from_micros" => Some(1_000),
            "from_nanos" => Some(1),
            _ => None,
        },
        _ => None,
    }
}

fn literal(expression: &Expr) -> Option<i128> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse().ok(),
        _ => None,
    }
}

/// Whether a type is a number, a time, or a range of them.
fn is_number(of: &Type) -> bool {
    const NUMBERS: [&str; 17] = [
        "u8",
        "u16",
        "u32",
        "u64",
        "u128",
        "usize",
        "i8",
        "i16",
        "i32",
        "i64",
        "i128",
        "isize",
        "f32",
        "f64",
        "Duration",
        "NonZeroUsize",
        "VarInt",
    ];
    let Type::Path(path) = of else { return false };
    let Some(last) = path.path.segments.last() else { return false };
    let name = last.ident.to_string();
    let of_arguments = match &last.arguments {
        syn::PathArguments::AngleBracketed(all) => all.args.iter().any(|argument| match argument {
            syn::GenericArgument::Type(of) => is_number(of),
            _ => false,
        }),
        _ => false,
    };
    NUMBERS.contains(&name.as_str())
        || name.starts_with("NonZero")
        || of_arguments && ["Range", "RangeInclusive", "Option"].contains(&name.as_str())
}

/// All constants, by their names.
struct Names<'a>(&'a [Raw]);

impl<'a> Names<'a> {
    /// What an expression comes to in the place of the constant `of`.
    fn value(&self, expression: &Expr, of: &Raw) -> Option<Value> {
        match expression {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Int(number) => number.base10_parse().ok().map(Value::Number),
                Lit::Float(number) => number.base10_parse().ok().map(Value::Float),
                Lit::Byte(number) => Some(Value::Number(number.value().into())),
                _ => None,
            },
            Expr::Paren(inner) => self.value(&inner.expr, of),
            Expr::Group(inner) => self.value(&inner.expr, of),
            Expr::Cast(cast) => self.value(&cast.expr, of),
            Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => {
                Some(Value::Number(-self.value(&unary.expr, of)?.number()?))
            }
            Expr::Binary(both) => {
                let (left, right) = (self.value(&both.left, of)?, self.value(&both.right, of)?);
                calculate(&both.op, &left, &right)
            }
            Expr::Range(range) => {
                let end = self.value(range.end.as_ref()?, of)?;
                let end = match range.limits {
                    syn::RangeLimits::Closed(_) => end,
                    syn::RangeLimits::HalfOpen(_) => Value::Number(end.number()? - 1),
                };
                Some(Value::range(self.value(range.start.as_ref()?, of)?, end))
            }
            Expr::Call(call) => {
                let Expr::Path(path) = &*call.func else { return None };
                let argument = || self.value(call.args.first()?, of);
                if let Some(unit) = time_unit(&path.path) {
                    return Some(Value::Time(argument()?.number()?.checked_mul(unit)?));
                }
                // `NonZeroUsize::new`, `VarInt::from_u32`, `Some`
                let name = path.path.segments.last()?.ident.to_string();
                ["new", "from_u32", "Some"].contains(&name.as_str()).then(argument)?
            }
            Expr::MethodCall(call) => {
                let receiver = self.value(&call.receiver, of);
                match (call.method.to_string().as_str(), receiver) {
                    ("as_secs", Some(Value::Time(nanos))) => Some(Value::Number(nanos / 1_000_000_000)),
                    ("expect", value) => value,
                    ("len", _) => self.length(&call.receiver, of),
                    _ => None,
                }
            }
            Expr::Path(path) => self.path(&path.path, of),
            _ => None,
        }
    }

    fn path(&self, path: &syn::Path, of: &Raw) -> Option<Value> {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match *names {
            ["usize" | "u64" | "Self", "MAX"] => Some(Value::Number(u64::MAX.into())),
            ["u32", "MAX"] => Some(Value::Number(u32::MAX.into())),
            ["u128", "BITS"] => Some(Value::Number(128)),
            ["Duration", "ZERO"] => Some(Value::Time(0)),
            _ => {
                let found = self.find(&names, of)?;
                self.value(&found.expression, found)
            }
        }
    }

    fn length(&self, receiver: &Expr, of: &Raw) -> Option<Value> {
        let Expr::Path(path) = receiver else { return None };
        let names: Vec<String> = path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut expression = &self.find(&names, of)?.expression;
        while let Expr::Reference(inner) = expression {
            expression = &inner.expr;
        }
        let length = match expression {
            Expr::Array(array) => array.elems.len(),
            Expr::Lit(ExprLit { lit: Lit::ByteStr(text), .. }) => text.value().len(),
            Expr::Unary(unary) => match &*unary.expr {
                Expr::Lit(ExprLit { lit: Lit::ByteStr(text), .. }) => text.value().len(),
                _ => return None,
            },
            _ => return None,
        };
        Some(Value::Number(length.try_into().ok()?))
    }

    /// The constant that a path means: of the same file, of the file around it, or the one whose file has the
    /// names of the path.
    fn find(&self, names: &[&str], of: &Raw) -> Option<&'a Raw> {
        let (name, modules) = names.split_last()?;
        let candidates = self.0.iter().filter(|raw| raw.name == *name);
        let mut candidates: Vec<&Raw> = candidates.collect();
        match modules.last() {
            None | Some(&"Self") => {
                if let Some(here) = candidates.iter().find(|raw| raw.file == of.file) {
                    return Some(here);
                }
            }
            Some(&"super") => {
                let folder = of.file.rsplit_once('/')?.0;
                candidates.retain(|raw| {
                    raw.file == format!("{folder}/mod.rs") || raw.file == format!("{folder}.rs")
                });
            }
            Some(module) => candidates.retain(|raw| {
                raw.file.ends_with(&format!("/{module}.rs"))
                    || raw.file.ends_with(&format!("/{module}/mod.rs"))
            }),
        }
        match *candidates {
            [only] => Some(only),
            _ => None,
        }
    }
}

fn calculate(operator: &BinOp, left: &Value, right: &Value) -> Option<Value> {
    if let (Value::Float(_), _) | (_, Value::Float(_)) = (left, right) {
        return None;
    }
    let (left, right) = (left.number()?, right.number()?);
    let result = match operator {
        BinOp::Add(_) => left.checked_add(right)?,
        BinOp::Sub(_) => left.checked_sub(right)?,
        BinOp::Mul(_) => left.checked_mul(right)?,
        BinOp::Div(_) => left.checked_div(right)?,
        BinOp::Shl(_) => left.checked_shl(right.try_into().ok()?)?,
        BinOp::BitOr(_) => left | right,
        _ => return None,
    };
    Some(Value::Number(result))
}
