//! What every plugin of this shelf has around its own work, written once.

/// Makes a component of a plugin: its bindings, `lifecycle` and `schema`, and what it keeps between calls.
///
/// ```ignore
/// settings::component! {
///     IpAllow: "package adit:shelf; world it { … }",
///     headers: [],
///     state: Plan = Plan::read,
/// }
/// ```
///
/// The world stands in the package `adit:shelf`, is named `it`, and exports `lifecycle` and `schema`; `from`
/// behind it names other files than `wit/`. `headers` are those that the request phase is shown, and `of answers`
/// those of the response phase, if there are any. The state is what the function makes of the configuration, a
/// `fn(&str) -> Result<State, Vec<settings::Fault>>`. The schema is the file `schema.json` beside the source.
///
/// What is written: a module `bindings`; the struct, for which the source implements what else it exports;
/// and `fn configured<T>(work: impl FnOnce(&State) -> T) -> Result<T, Fault>`.
#[macro_export]
macro_rules! component {
    ($name:ident: $world:tt, headers: $headers:expr, state: $state:ty = $read:expr $(,)?) => {
        $crate::component! { $name: $world from "../../wit", headers: $headers, state: $state = $read }
    };
    ($name:ident: $world:tt from $path:tt, headers: $headers:expr, state: $state:ty = $read:expr $(,)?) => {
        $crate::component! { $name: $world from $path, headers: $headers, of answers: [], state: $state = $read }
    };
    ($name:ident: $world:tt, headers: $headers:expr, of answers: $answers:expr, state: $state:ty = $read:expr $(,)?) => {
        $crate::component! {
            $name: $world from "../../wit", headers: $headers, of answers: $answers, state: $state = $read
        }
    };
    (
        $name:ident: $world:tt from $path:tt, headers: $headers:expr, of answers: $answers:expr,
        state: $state:ty = $read:expr $(,)?
    ) => {
        #[allow(unsafe_code)]
        mod bindings {
            wit_bindgen::generate!({
                path: $path,
                inline: $world,
                world: "adit:shelf/it",
                generate_all,
            });

            #[cfg(target_arch = "wasm32")]
            use super::$name;
            #[cfg(target_arch = "wasm32")]
            export!($name with_types_in self);
        }

        /// The component's exports.
        pub struct $name;

        thread_local! {
            // An instance is one thread.
            static STATE: std::cell::OnceCell<$state> = const { std::cell::OnceCell::new() };
        }

        impl bindings::exports::adit::plugin::lifecycle::Guest for $name {
            fn describe() -> bindings::exports::adit::plugin::lifecycle::Manifest {
                let headers: &[&str] = &$headers;
                let answers: &[&str] = &$answers;
                bindings::exports::adit::plugin::lifecycle::Manifest {
                    name: env!("CARGO_PKG_NAME").to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    request_headers: headers.iter().map(|name| (*name).to_owned()).collect(),
                    response_headers: answers.iter().map(|name| (*name).to_owned()).collect(),
                }
            }

            fn configure(config: String) -> Result<(), Vec<bindings::adit::plugin::types::Fault>> {
                let read: fn(&str) -> Result<$state, Vec<$crate::Fault>> = $read;
                let fault = |fault: $crate::Fault| bindings::adit::plugin::types::Fault {
                    code: fault.pointer,
                    message: fault.message,
                };
                let state = read(&config).map_err(|faults| faults.into_iter().map(fault).collect::<Vec<_>>())?;
                // An instance is configured once.
                STATE.with(|cell| drop(cell.set(state)));
                Ok(())
            }
        }

        impl bindings::exports::adit::plugin::schema::Guest for $name {
            fn config_schema() -> String {
                include_str!("schema.json").to_owned()
            }
        }

        /// Has `work` done with what was configured.
        fn configured<T>(work: impl FnOnce(&$state) -> T) -> Result<T, bindings::adit::plugin::types::Fault> {
            STATE.with(|state| {
                state.get().map(work).ok_or_else(|| bindings::adit::plugin::types::Fault {
                    code: "not-configured".to_owned(),
                    message: "a request came before the configuration".to_owned(),
                })
            })
        }
    };
}
