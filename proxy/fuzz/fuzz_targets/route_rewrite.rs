//! A request that a Route sends on with another path and host: it is one request still, and the one that was meant.
#![no_main]

use ferrule_config::{HeaderChange, Match, PathMatch, PathRewrite, Rewrite, RouteEntry, Rule};
use ferrule_proxy::{
    act::Actions,
    http1::{
        head::{self, Form, field_space},
        rewrite,
    },
    route::{Request, Table},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut space = field_space();
    let Ok(Some((request, _))) = head::request(bytes, &mut space) else { return };
    let prefix = |path: &str| Match { path: Some(PathMatch::Prefix(path.into())), ..Match::default() };
    let entry = |matches, rule| RouteEntry { port: None, matches, rule };
    let table = Table::new(vec![entry(prefix("/v2"), 0), entry(prefix("/"), 0)]).expect("sound");
    let asked = Request {
        method: request.method,
        path: request.path(),
        query: request.query(),
        authority: request.authority(),
        fields: request.fields,
    };
    let found = table.decide(&asked).expect("the second matches everything");
    for replacement in ["/", "/new"] {
        let path = Some(PathRewrite::Prefix(replacement.into()));
        let rewrite = Some(Rewrite { host: Some("other.example".into()), path });
        let actions = Actions::new(&Rule { rewrite, ..Rule::default() }).expect("some");
        let Ok(acted) = actions.act(&asked, found, |_| 0) else { continue };
        let rewritten = acted.rewritten.expect("rewritten");
        let mut out = Vec::new();
        rewrite::rewritten(&mut out, &request, &rewritten, &HeaderChange::default(), "shop/cart");
        let mut space = field_space();
        let (written, length) =
            head::request(&out, &mut space).expect("what we write is valid").expect("and complete");
        assert_eq!(length, out.len(), "one head and nothing else");
        assert_eq!(written.authority(), if request.form == Form::Authority { request.target.as_bytes() } else { b"other.example" });
        assert_eq!(written.query(), request.query());
        assert_eq!(written.framing, request.framing);
        assert!(!written.path().starts_with("//") || request.path().starts_with("//"));
    }
});
