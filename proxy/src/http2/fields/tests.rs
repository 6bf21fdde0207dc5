use super::*;

fn fields(list: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in list {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    fields
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "shop"), (":path", "/a?b")];

fn request_with(more: &[(&str, &str)]) -> Result<RequestInfo, Malformed> {
    fields(&[&GET, more].concat()).as_request()
}

#[test]
fn a_request_is_read() {
    let mut request = fields(&[&GET[..], &[("content-length", "3"), ("te", "trailers")]].concat());
    assert_eq!(request.as_request(), Ok(RequestInfo { length: Some(3), connect: false }));
    assert_eq!(
        (request.method(), request.scheme(), request.authority(), request.path()),
        ("GET", "http", "shop", "/a?b")
    );
    assert_eq!(request.regular().count(), 2);
    assert_eq!(request.value(b"te"), Some(b"trailers".as_slice()));
}

#[test]
fn malformed_requests_are_refused() {
    for more in [
        &[(":method", "GET")][..],
        &[(":status", "200")],
        &[(":protocol", "websocket")],
        &[("a", "1"), (":path", "/")],
        &[("Upper", "1")],
        &[("sp ace", "1")],
        &[("", "1")],
        &[("col:on", "1")],
        &[("a", "x\r\ny: z")],
        &[("a", "nul\0")],
        &[("a", " x")],
        &[("a", "x\t")],
        &[("connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("upgrade", "h2c")],
        &[("keep-alive", "1")],
        &[("proxy-connection", "x")],
        &[("te", "gzip")],
        &[("content-length", "+3")],
        &[("content-length", "3, 3")],
        &[("content-length", "3"), ("content-length", "3")],
        &[("host", "other")],
        &[("host", "shop"), ("host", "shop")],
    ] {
        assert!(request_with(more).is_err(), "{more:?}");
    }
    assert!(request_with(&[("host", "shop")]).is_ok());
}

#[test]
fn each_pseudo_header_field_is_needed_and_checked() {
    for (index, (name, _)) in GET.iter().enumerate() {
        let mut list = GET.to_vec();
        list.remove(index);
        assert!(fields(&list).as_request().is_err(), "without {name}");
    }
    for (index, value) in [
        (0, "GE T"),
        (0, ""),
        (1, "ht tp"),
        (1, ""),
        (2, "user@shop"),
        (2, "sh op"),
        (2, ""),
        (2, "shop/x"),
        (3, ""),
        (3, "a"),
        (3, "*"),
        (3, "/a b"),
        (3, "/a#b"),
        (3, "http://x/"),
    ] {
        let mut list = GET.to_vec();
        list[index].1 = value;
        assert!(fields(&list).as_request().is_err(), "{list:?}");
    }
}

#[test]
fn connect_has_an_authority_alone() {
    let connect = |list: &[(&str, &str)]| fields(list).as_request();
    assert!(connect(&[(":method", "CONNECT"), (":authority", "a:1")]).is_ok_and(|it| it.connect));
    assert!(connect(&[(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")]).is_err());
    assert!(connect(&[(":method", "CONNECT"), ("host", "a:1")]).is_err());
}

#[test]
fn a_response_needs_a_status() {
    let status = |value: &str| fields(&[(":status", value)]).as_response().map(|it| it.status);
    assert_eq!(status("204"), Ok(204));
    for wrong in ["", "20", "2000", "099", "2x4", "101", "+20"] {
        assert!(status(wrong).is_err(), "{wrong}");
    }
    assert!(fields(&[("a", "b")]).as_response().is_err());
    assert!(fields(&[(":status", "200"), (":status", "200")]).as_response().is_err());
    assert!(fields(&[(":status", "200"), (":path", "/")]).as_response().is_err());
}

#[test]
fn trailers_frame_nothing() {
    assert!(fields(&[("grpc-status", "0")]).as_trailers().is_ok());
    assert!(fields(&[(":status", "200")]).as_trailers().is_err());
    assert!(fields(&[("content-length", "0")]).as_trailers().is_err());
}
