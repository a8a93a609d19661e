//! What may be wrong with a policy's text.

use crate::{
    pattern::{PatternError, did_you_mean},
    suggest::or_nothing,
};

/// What is wrong with a policy's text. Strings are already escaped and cropped, fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields hold")]
pub enum Fault {
    #[error("`{found}` is no path of a socket: {why}, such as `/run/postgresql/.s.PGSQL.5432`")]
    SocketPath { found: String, why: &'static str },
    #[error("the policy is empty: wanted at least `version: 1`, `default: block` and `rules:`")]
    Empty,
    #[error("the policy is not UTF-8 text: octet {octet:#04x} begins no character; save it as UTF-8")]
    NotUtf8 { octet: u8 },
    #[error("not YAML as a policy wants it: {message}{help}")]
    Yaml { message: String, help: &'static str },
    #[error("a second YAML document begins: wanted one policy in a file; leave out the `---`")]
    SecondDocument,
    #[error("unknown key `{found}`: wanted one of {wanted}{}", or_nothing(.meant))]
    UnknownKey { found: String, wanted: String, meant: Option<String> },
    #[error("the key `{key}` is here a second time: put both into one")]
    DuplicateKey { key: String },
    #[error("`{key}` is missing: {help}")]
    MissingKey { key: &'static str, help: &'static str },
    #[error("`{key}` does not belong here: {help}")]
    Misplaced { key: &'static str, help: &'static str },
    #[error("found {found}: wanted {wanted}")]
    WrongType { found: String, wanted: &'static str },
    #[error("version `{found}` is not known: wanted `version: 1`; a newer trustrun may know it")]
    Version { found: String },
    #[error("`{found}` is not an action: wanted allow, alert, block or kill{}", did_you_mean(.meant))]
    Action { found: String, meant: Option<&'static str> },
    #[error("`{key}: {found}` is not known: wanted {wanted}{}", did_you_mean(.meant))]
    Word { key: &'static str, found: String, wanted: &'static str, meant: Option<&'static str> },
    #[error("{what} `{found}` is empty, longer than {most} characters or holds control characters: wanted one line")]
    Line { what: &'static str, found: String, most: usize },
    #[error(
        "{rule} has no pattern: wanted a list under allow, alert, block or kill, such as `allow: [\"example.org:443\"]`"
    )]
    EmptyRule { rule: String },
    #[error("in {rule}: {error}")]
    Pattern { rule: String, error: PatternError },
    #[error(
        "in {rule}: `{found}` names a host: wanted a network of peers, an address or `*`, as in `10.20.0.0/16:8888`; \
             who connects is known by its address alone"
    )]
    ListenName { rule: String, found: String },
    #[error("`{found}` is no date: wanted the last day on which it counts, as in `2027-03-01`")]
    Date { found: String },
    #[error("`{found}` is no condition for {key}: {why}")]
    Condition { key: &'static str, found: String, why: &'static str },
    #[error("`{found}` is no name of {what}: wanted lower-case letters, digits, `-` and `_`, beginning with a letter")]
    Identifier { what: &'static str, found: String },
    #[error("`{{{found}}}` is no parameter of this document: {known}{}", or_nothing(.meant))]
    UnknownParameter { found: String, known: String, meant: Option<String> },
    #[error("the parameter `{found}` is not one of {document}: {known}{}", or_nothing(.meant))]
    NotAParameter { found: String, document: String, known: String, meant: Option<String> },
    #[error("the parameter `{name}` of {document} is missing{what}: write `parameters: {{{name}: VALUE}}` {place}")]
    MissingParameter { name: String, document: String, what: String, place: &'static str },
    #[error("`{value}` cannot be the value of `{name}`: {why}")]
    ParameterValue { name: String, value: String, why: &'static str },
    #[error("`{found}` has `{{` or `}}` without the other: a parameter is written `{{name}}`")]
    Braces { found: String },
    #[error("there is no preset `{found}`: `trustrun policy presets` lists them; a file begins with `./`, `../` or `/`{}",
        or_nothing(.meant))]
    UnknownPreset { found: String, meant: Option<String> },
    #[error(
        "a preset cannot extend the file `{found}`: wanted a preset's name, as presets are found without a file system"
    )]
    FileFromPreset { found: String },
    #[error("`{found}` extends itself: {chain}; leave one of them out")]
    Cycle { found: String, chain: String },
    #[error("`{found}` is extended through more than {limit} documents: {chain}; extend it nearer to the top")]
    TooDeep { found: String, limit: usize, chain: String },
    #[error(
        "the policy is composed of more than {limit} {what}: extend fewer, or give the same document the same \
             parameters"
    )]
    TooMuch { limit: usize, what: &'static str },
    #[error("{chain}: {why}")]
    NotExtended { chain: String, why: String },
    #[error(
        "{file} is no policy; what is wrong in it is not shown, since you may not read it: have somebody who may run \
             `trustrun policy check` on it"
    )]
    Hidden { file: String },
    #[error("no document has the environment `{found}`: {known}{}", or_nothing(.meant))]
    Environment { found: String, known: String, meant: Option<String> },
    #[error(
        "line {line} is not as the canonical form has it: wanted, to the octet, what a composed policy was written as"
    )]
    NotCanonical { line: u64 },
    #[error(
        "line {line} of the policy's canonical form does not say what the policy says: this is a defect of trustrun, which \
             runs nothing under it; please report it with the policy"
    )]
    Canonical { line: u64 },
}
