//! Which format a scraper is given: the one that it likes best of those that are spoken here (RFC 9110 §12.5.1).

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4: for whoever does not say.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// `io.prometheus.client.MetricFamily`, each behind its length: the only one that has native histograms.
    Protobuf,
}

impl Format {
    /// Value of `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// What is given to whoever sends this `Accept`.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let mut best = (Self::Text, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<(String, &str)> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"')))
                .collect();
            let value = |name| parameters.iter().find(|(each, _)| each == name).map(|(_, value)| *value);
            let is = |name, wanted| value(name).is_none_or(|value| value == wanted);
            let format = match media.as_str() {
                "application/vnd.google.protobuf"
                    if value("proto") == Some("io.prometheus.client.MetricFamily")
                        && value("encoding") == Some("delimited") =>
                {
                    Self::Protobuf
                }
                "application/openmetrics-text" if is("version", "1.0.0") => Self::OpenMetrics,
                "text/plain" if is("version", "0.0.4") => Self::Text,
                "*/*" | "text/*" => Self::Text,
                _ => continue,
            };
            let weight = value("q").map_or(1.0, |q| q.parse::<f64>().unwrap_or(0.0));
            if weight > best.1 {
                best = (format, weight);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_likes_best() {
        let prometheus = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                          encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
                          text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        let without_native = "application/openmetrics-text;version=1.0.0;q=0.5,\
                              application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus, Format::Protobuf),
            (without_native, Format::OpenMetrics),
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html, */*;q=0.8", Format::Text),
            ("application/json", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0, text/plain;q=0.1", Format::Text),
            ("application/vnd.google.protobuf;proto=other;encoding=delimited", Format::Text),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
                Format::Text,
            ),
            ("Text/Plain;Q=0.1, APPLICATION/OpenMetrics-Text;q=0.2", Format::OpenMetrics),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }
}
