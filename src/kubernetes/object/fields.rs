//! Which fields a manager owns, by `fieldsV1`: of some maps the names, and no more.
//!
//! Whoever may write to an object decides what is in there. What is not needed is passed over without recursion and
//! kept nowhere, and what has another form than expected is empty: it is no reason not to read the object.
//! `managed_fields_of_any_depth_and_form_are_read`

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

#[derive(Debug, Clone, Default)]
pub(super) struct Fields {
    pub(super) labels: Names,
    pub(super) annotations: Names,
    pub(super) data: Names,
    pub(super) has_type: bool,
}

/// The names in a map. A map itself, which managers own too, is the key `.`, and none of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What is filled by the entries of a map.
trait Entries: Default {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
}

impl Entries for Names {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        self.0.extend(key.strip_prefix("f:").map(str::to_owned));
        map.next_value::<IgnoredAny>().map(drop)
    }
}

#[derive(Default)]
struct OfMetadata {
    labels: Names,
    annotations: Names,
}

impl Entries for OfMetadata {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "f:labels" => self.labels = map.next_value::<Lenient<_>>()?.0,
            "f:annotations" => self.annotations = map.next_value::<Lenient<_>>()?.0,
            _ => {
                let _: IgnoredAny = map.next_value()?;
            }
        }
        Ok(())
    }
}

impl Entries for Fields {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "f:metadata" => {
                let OfMetadata { labels, annotations } = map.next_value::<Lenient<_>>()?.0;
                (self.labels, self.annotations) = (labels, annotations);
            }
            "f:data" => self.data = map.next_value::<Lenient<_>>()?.0,
            _ => {
                self.has_type |= key == "f:type";
                let _: IgnoredAny = map.next_value()?;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Lenient::deserialize(deserializer).map(|it| it.0)
    }
}

/// A map, or anything else as an empty one.
struct Lenient<T>(T);

impl<'de, T: Entries> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader(PhantomData)).map(Self)
    }
}

struct Reader<T>(PhantomData<T>);

impl<'de, T: Entries> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut entries = T::default();
        while let Some(key) = map.next_key::<String>()? {
            entries.take(&key, &mut map)?;
        }
        Ok(entries)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }
}
