//! `--format` of a list: docker's `table`, `table TEMPLATE`, `json` and `TEMPLATE`.

use crate::text::format;
use crate::text::template::{Template, TemplateError, Value};

/// How a list is printed.
#[derive(Debug, Clone)]
pub enum Format {
    /// The verb's own table.
    Table,
    /// A table of the template's columns.
    Columns(Template),
    /// An object per line.
    Json,
    /// The template's text per line.
    Lines(Template),
}

impl Format {
    /// Reads `--format`. `\t` and `\n` stand for what they do in Go, since a shell passes them on.
    pub fn parse(text: &str) -> Result<Format, TemplateError> {
        let text = text.trim();
        let template =
            |text: &str| Template::parse(&text.replace("\\t", "\t").replace("\\n", "\n"));
        match text.strip_prefix("table") {
            Some("") => Ok(Format::Table),
            Some(columns) if columns.starts_with([' ', '\t']) => {
                template(columns.trim()).map(Format::Columns)
            }
            _ if text == "json" => Ok(Format::Json),
            _ => template(text).map(Format::Lines),
        }
    }

    /// The text for some rows; `None` for the verb's own table. `names` has each column's name.
    pub fn render(
        &self,
        names: &[(&str, &str)],
        rows: &[Value],
    ) -> Result<Option<String>, TemplateError> {
        type Texts = Result<Vec<String>, TemplateError>;
        let lines = |template: &Template| -> Texts {
            rows.iter().map(|row| template.render(row)).collect()
        };
        match self {
            Format::Table => Ok(None),
            Format::Json => {
                let line = |row| serde_json::to_string(row).map(|text| text + "\n");
                // Texts and numbers are always JSON.
                Ok(Some(rows.iter().filter_map(|row| line(row).ok()).collect()))
            }
            Format::Lines(template) => {
                let lines = lines(template)?;
                Ok(Some(lines.iter().map(|line| format!("{line}\n")).collect()))
            }
            Format::Columns(template) => {
                let names: Vec<_> = names.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
                let mut all = vec![template.header(&Value::record(&names))?];
                all.extend(lines(template)?);
                let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
                let rows: Vec<Vec<String>> = all.iter().map(cells).collect();
                Ok(Some(format::table(None, &rows)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(format: &str) -> String {
        let rows = [("nginx", "133MB"), ("busybox", "4MB")];
        let rows = rows.map(|(name, size)| {
            Value::record(&[("Name", name.to_owned()), ("Size", size.to_owned())])
        });
        let names = [("Name", "NAME"), ("Size", "SIZE")];
        Format::parse(format)
            .unwrap()
            .render(&names, &rows)
            .unwrap()
            .unwrap_or_default()
    }

    #[test]
    fn formats_are_docker_s() {
        assert_eq!(shown("table"), "");
        assert_eq!(shown("{{.Size}}"), "133MB\n4MB\n");
        assert_eq!(
            shown("{{.Name}}\\t{{.Size}}"),
            "nginx\t133MB\nbusybox\t4MB\n"
        );
        assert_eq!(
            shown("table {{.Name}}\\t{{.Size}}"),
            "NAME      SIZE\nnginx     133MB\nbusybox   4MB\n"
        );
        assert_eq!(
            shown("table {{truncate .Name 2}}\t{{lower .Size}}"),
            "NAME      SIZE\nng        133mb\nbu        4mb\n"
        );
        assert_eq!(
            shown("json"),
            "{\"Name\":\"nginx\",\"Size\":\"133MB\"}\n{\"Name\":\"busybox\",\"Size\":\"4MB\"}\n"
        );
        assert_eq!(shown("tables"), "tables\ntables\n");
        assert!(Format::parse("{{").is_err());
    }
}
