//! One result in every form: table, wide, JSON, YAML, names.

use serde_json::{Map, Value};

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people, as wide as the terminal.
    #[default]
    Table,
    /// For people, every column.
    Wide,
    /// One JSON object.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names alone, one a line.
    Name,
}

impl Format {
    /// Whether it is for people.
    pub(crate) fn is_human(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

/// The result of a command as programs get it: one object whether there is none, one or many.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Answer {
    kind: &'static str,
    mesh: Option<String>,
    epoch: Option<u64>,
    extra: Map<String, Value>,
    items: Vec<Value>,
    name_field: &'static str,
    total: Option<usize>,
}

impl Answer {
    /// Nothing yet of `kind`; `name_field` is the field of an item that `-o name` prints.
    pub(crate) fn new(kind: &'static str, name_field: &'static str) -> Self {
        Self { kind, name_field, ..Self::default() }
    }

    /// Of a mesh at an epoch.
    pub(crate) fn of_mesh(mut self, mesh: &str, epoch: Option<u64>) -> Self {
        self.mesh = Some(mesh.to_owned());
        self.epoch = epoch;
        self
    }

    /// With a further field beside `items`.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.extra.insert(name.to_owned(), value);
        self
    }

    /// With these items.
    pub(crate) fn items(mut self, items: Vec<Value>) -> Self {
        self.items = items;
        self
    }

    /// At most `limit` items (0: all); how many there were is then said in `total`.
    pub(crate) fn limit(mut self, limit: usize) -> Self {
        if limit != 0 && self.items.len() > limit {
            self.total = Some(self.items.len());
            self.items.truncate(limit);
        }
        self
    }

    /// As JSON, YAML or names, with a newline at the end; `None` for the forms that people read.
    pub(crate) fn render(&self, format: Format) -> Option<String> {
        match format {
            Format::Table | Format::Wide => None,
            Format::Json => Some(format!("{}\n", self.value())),
            Format::Yaml => serde_yaml::to_string(&self.value()).ok(),
            Format::Name => {
                Some(self.items.iter().filter_map(|item| self.name_of(item)).fold(String::new(), |mut text, name| {
                    text.push_str(&name);
                    text.push('\n');
                    text
                }))
            }
        }
    }

    fn name_of(&self, item: &Value) -> Option<String> {
        match item.get(self.name_field)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }

    fn value(&self) -> Value {
        let mut object = Map::new();
        object.insert("kind".into(), self.kind.into());
        object.insert("mesh".into(), self.mesh.clone().into());
        object.insert("epoch".into(), self.epoch.into());
        object.extend(self.extra.clone());
        if let Some(total) = self.total {
            object.insert("total".into(), total.into());
        }
        object.insert("items".into(), Value::Array(self.items.clone()));
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_one_object_for_none_one_and_many() {
        let none = Answer::new("status", "service").of_mesh("shop", Some(4));
        assert_eq!(
            none.render(Format::Json).as_deref(),
            Some("{\"kind\":\"status\",\"mesh\":\"shop\",\"epoch\":4,\"items\":[]}\n")
        );
        let two = none.items(vec![json!({"service": "a"}), json!({"service": "b"})]);
        assert_eq!(two.render(Format::Name).as_deref(), Some("a\nb\n"));
        assert_eq!(
            two.clone().limit(1).render(Format::Json).as_deref(),
            Some("{\"kind\":\"status\",\"mesh\":\"shop\",\"epoch\":4,\"total\":2,\"items\":[{\"service\":\"a\"}]}\n")
        );
        assert_eq!(two.render(Format::Table), None);
    }

    #[test]
    fn what_is_unknown_is_null() {
        let text = Answer::new("check", "file").render(Format::Yaml);
        assert_eq!(text.as_deref(), Some("kind: check\nmesh: null\nepoch: null\nitems: []\n"));
    }
}
