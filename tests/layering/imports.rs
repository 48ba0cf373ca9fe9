//! What one source file names: every path in it, wherever it stands, spelled out from the root of its crate
//! or of another one. Reads Rust; knows no rule and no other file.

use std::collections::HashMap;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// One source file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    pub(crate) imports: Vec<Import>,
    pub(crate) children: Vec<Child>,
}

/// A path that is named.
#[derive(Debug, Clone)]
pub(crate) struct Import {
    /// Begins with `crate::` if it leads into the crate of its file.
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) is_test: bool,
    /// Everything of the path, unseen.
    pub(crate) is_glob: bool,
}

/// A module that has a file of its own.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    /// Modules in the file that stand around it, and its own name.
    pub(crate) names: Vec<String>,
    /// What `#[path]` says.
    pub(crate) path: Option<String>,
    pub(crate) is_test: bool,
}

/// Reads a file that is the module `module` of its crate (`a::b`, nothing for its root).
pub(crate) fn read(text: &str, module: &str, is_test: bool) -> syn::Result<Source> {
    let file = syn::parse_file(text)?;
    let here = module.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let is_test = is_test || file.attrs.iter().any(is_for_tests);
    let mut reader = Reader { here, around: Vec::new(), is_test, ..Reader::default() };
    reader.visit_file(&file);
    let Reader { found, names, children, .. } = reader;
    let mut imports = Vec::new();
    for Found { path, line, is_test, is_glob } in found {
        for path in resolved(path, &names, MOST_NAMES) {
            imports.push(Import { path: path.join("::"), line, is_test, is_glob });
        }
    }
    Ok(Source { imports, children })
}

/// A path before names that the file itself gives are replaced.
struct Found {
    path: Vec<String>,
    line: usize,
    is_test: bool,
    is_glob: bool,
}

#[derive(Default)]
struct Reader {
    /// The module that is being read.
    here: Vec<String>,
    /// Modules of this file that stand around it.
    around: Vec<String>,
    is_test: bool,
    found: Vec<Found>,
    /// What a `use`, a `mod` or an `extern crate` calls something, wherever in the file.
    names: HashMap<String, Vec<Vec<String>>>,
    children: Vec<Child>,
}

impl Reader {
    fn add(&mut self, path: Vec<String>, span: Span) {
        let path = self.absolute(path);
        self.found.push(Found { path, line: span.start().line, is_test: self.is_test, is_glob: false });
    }

    /// Whatever a path is called from here on.
    fn name(&mut self, name: String, path: Vec<String>) {
        let known = self.names.entry(name).or_default();
        if !known.contains(&path) {
            known.push(path);
        }
    }

    /// `super::` and `self::` counted from where they stand.
    fn absolute(&self, path: Vec<String>) -> Vec<String> {
        let mut here = self.here.clone();
        let steps = path.iter().take_while(|step| ["self", "super"].contains(&step.as_str())).count();
        if steps == 0 {
            return path;
        }
        for step in &path[..steps] {
            if step == "super" {
                here.pop();
            }
        }
        std::iter::once("crate".to_owned()).chain(here).chain(path[steps..].iter().cloned()).collect()
    }

    fn add_use(&mut self, tree: &syn::UseTree, prefix: &[String]) {
        let with = |name: &syn::Ident| [prefix, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_use(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(tree, prefix)),
            syn::UseTree::Glob(glob) => {
                self.add(prefix.to_vec(), glob.star_token.spans[0]);
                self.found.last_mut().expect("just added").is_glob = true;
            }
            syn::UseTree::Name(name) => {
                let path = if name.ident == "self" { prefix.to_vec() } else { with(&name.ident) };
                self.add(path.clone(), name.ident.span());
                let name = path.last().cloned().unwrap_or_default();
                let path = self.absolute(path);
                self.name(name, path);
            }
            syn::UseTree::Rename(renamed) => {
                let path = if renamed.ident == "self" { prefix.to_vec() } else { with(&renamed.ident) };
                self.add(path.clone(), renamed.ident.span());
                let path = self.absolute(path);
                self.name(renamed.rename.to_string(), path);
            }
        }
    }

    /// Every `a::b` of a macro's tokens, groups in braces spelled out.
    fn add_tokens(&mut self, tokens: TokenStream, has_texts: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(_) => at = self.add_path(&tokens, at, &[]),
                TokenTree::Group(group) => {
                    self.add_tokens(group.stream(), has_texts);
                    at += 1;
                }
                TokenTree::Literal(literal) if has_texts => {
                    // Attributes name paths in texts too, such as `#[serde(with = "a::b")]`.
                    if let syn::Lit::Str(text) = syn::Lit::new(literal.clone())
                        && let Ok(path) = text.parse::<syn::Path>()
                        && path.segments.len() > 1
                    {
                        self.add(segments(&path), literal.span());
                    }
                    at += 1;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
            }
        }
    }

    /// The path that begins at a token, below `prefix`; hands back where the tokens go on.
    fn add_path(&mut self, tokens: &[TokenTree], mut at: usize, prefix: &[String]) -> usize {
        let span = tokens[at].span();
        let mut path = prefix.to_vec();
        while let Some(TokenTree::Ident(name)) = tokens.get(at) {
            path.push(name.to_string());
            at += 1;
            if !is_colons(tokens, at) {
                break;
            }
            at += 2;
        }
        match tokens.get(at) {
            Some(TokenTree::Group(group)) if is_colons(tokens, at.wrapping_sub(2)) => {
                if group.delimiter() == Delimiter::Brace {
                    let members: Vec<TokenTree> = group.stream().into_iter().collect();
                    let mut member = 0;
                    while member < members.len() {
                        member = match members[member] {
                            TokenTree::Ident(_) => self.add_path(&members, member, &path),
                            _ => member + 1,
                        };
                    }
                }
                at += 1;
            }
            _ => {}
        }
        if path.len() > 1 {
            self.add(path, span);
        }
        at
    }

    /// Looks at something with these attributes.
    fn within(&mut self, attributes: &[syn::Attribute], look: impl FnOnce(&mut Self)) {
        let before = self.is_test;
        self.is_test |= attributes.iter().any(is_for_tests);
        look(self);
        self.is_test = before;
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        self.within(attributes(item), |reader| visit::visit_item(reader, item));
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes: &[_] = match item {
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Type(item) => &item.attrs,
            syn::ImplItem::Macro(item) => &item.attrs,
            _ => &[],
        };
        self.within(attributes, |reader| visit::visit_impl_item(reader, item));
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        self.within(&field.attrs, |reader| visit::visit_field(reader, field));
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        self.within(&local.attrs, |reader| visit::visit_local(reader, local));
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_use(&item.tree, &[]);
        visit::visit_item_use(self, item);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        let path = vec![if item.ident == "self" { "crate".to_owned() } else { item.ident.to_string() }];
        self.add(path.clone(), item.ident.span());
        let name = item.rename.as_ref().map_or(&item.ident, |(_, name)| name);
        self.name(name.to_string(), path);
        visit::visit_item_extern_crate(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        let path = self.absolute(vec!["self".to_owned(), name.clone()]);
        self.name(name.clone(), path);
        if item.content.is_some() {
            self.here.push(name.clone());
            self.around.push(name);
            visit::visit_item_mod(self, item);
            self.here.pop();
            self.around.pop();
        } else {
            visit::visit_item_mod(self, item);
            let path = item.attrs.iter().find(|attribute| attribute.path().is_ident("path"));
            let path = path.and_then(|attribute| match &attribute.meta {
                syn::Meta::NameValue(syn::MetaNameValue {
                    value: syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }),
                    ..
                }) => Some(path.value()),
                _ => None,
            });
            let names = self.around.iter().cloned().chain([name]).collect();
            self.children.push(Child { names, path, is_test: self.is_test });
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 || path.leading_colon.is_some() {
            self.add(segments(path), syn::spanned::Spanned::span(path));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        visit::visit_macro(self, item);
        self.add_tokens(item.tokens.clone(), false);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        visit::visit_meta_list(self, list);
        self.add_tokens(list.tokens.clone(), true);
    }
}

fn segments(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

/// `::` begins at this token.
fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon =
        |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    is_colon(at) && is_colon(at.wrapping_add(1))
}

/// Every meaning that a path may have, names replaced by what the file says that they are.
fn resolved(path: Vec<String>, names: &HashMap<String, Vec<Vec<String>>>, depth: usize) -> Vec<Vec<String>> {
    let Some(meanings) = path.first().and_then(|first| names.get(first)) else { return vec![path] };
    if depth == 0 {
        return vec![path];
    }
    let meanings = meanings.iter().filter(|meaning| meaning.first() != path.first() || meaning.len() > 1);
    let spelled: Vec<_> = meanings
        .flat_map(|meaning| {
            let spelled = [meaning.as_slice(), &path[1..]].concat();
            if meaning.first() == path.first() { vec![spelled] } else { resolved(spelled, names, depth - 1) }
        })
        .collect();
    if spelled.is_empty() { vec![path] } else { spelled }
}

/// `#[cfg(test)]`, also among other conditions that must all hold.
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
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Meta>().is_ok_and(|meta| wants_test(&meta))
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::ExternCrate(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::ForeignMod(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// How often a name may stand for another name.
const MOST_NAMES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str, module: &str) -> Vec<String> {
        let source = read(text, module, false).unwrap();
        source.imports.into_iter().filter(|import| !import.is_test).map(|import| import.path).collect()
    }

    #[test]
    fn every_form_of_a_path_is_read() {
        let text = r#"
            #[cfg(test)]
            mod early { use crate::only_in_tests; }
            use super::slot::{self, Slot, x::{Y, Z as W}};
            pub use crate::api;
            pub(crate) use crate::proxy as p;
            extern crate quinn as q;
            use std::io;
            mod child;
            // use crate::in_a_comment;
            /// crate::in_a_doc::comment
            #[serde(with = "crate::in_an_attribute::with")]
            struct S { at: crate::in_a_type::T<crate::in_a_generic::G> }
            fn f(one: &str) -> crate::route::Routes {
                let _ = "crate::in_a_string::x";
                p::Handler::new();
                child::make();
                io::stdin();
                q::VarInt::from(0);
                macro_call!(a, crate::in_a_macro::x(), { super::near::y });
                macro_call!(use crate::in_a_group::{one, two::{three}});
                match one { crate::in_a_pattern::P => loop { <crate::in_a_self_type::X as super::T>::f() } }
            }
            macro_rules! make { () => { $crate::in_a_definition::x() } }
            mod inner { use super::super::beside::x; fn g() { super::up() } }
        "#;
        let paths = paths(text, "tunnel::quic");
        for wanted in [
            "crate::tunnel::slot",
            "crate::tunnel::slot::Slot",
            "crate::tunnel::slot::x::Y",
            "crate::tunnel::slot::x::Z",
            "crate::api",
            "crate::proxy",
            "crate::proxy::Handler::new",
            "crate::tunnel::quic::child::make",
            "std::io::stdin",
            "quinn",
            "quinn::VarInt::from",
            "crate::in_an_attribute::with",
            "crate::in_a_type::T",
            "crate::in_a_generic::G",
            "crate::route::Routes",
            "crate::in_a_macro::x",
            "crate::tunnel::near::y",
            "crate::in_a_group::one",
            "crate::in_a_group::two::three",
            "crate::in_a_pattern::P",
            "crate::in_a_self_type::X",
            "crate::in_a_definition::x",
            "crate::tunnel::beside::x",
            "crate::tunnel::quic::up",
        ] {
            assert!(paths.iter().any(|path| path == wanted), "{wanted} is not in {paths:#?}");
        }
        for unwanted in ["only_in_tests", "in_a_comment", "in_a_doc", "in_a_string"] {
            assert!(!paths.iter().any(|path| path.contains(unwanted)), "{unwanted} is in {paths:#?}");
        }
    }

    #[test]
    fn what_only_tests_see_is_told_apart() {
        let text = "#[cfg(all(test, unix))] use a::b; #[cfg(any(test, unix))] use c::d; \
                    #[cfg(test)] mod tests; impl S { #[cfg(test)] fn f() { e::f() } fn g() { g::h() } }";
        let source = read(text, "", false).unwrap();
        let found: Vec<_> = source.imports.iter().map(|found| (found.path.as_str(), found.is_test)).collect();
        assert_eq!(found, [("a::b", true), ("c::d", false), ("e::f", true), ("g::h", false)]);
        assert!(source.children[0].is_test);
        assert!(read("#![cfg(test)] use a::b;", "", false).unwrap().imports[0].is_test);
    }
}
