//! What `system df` shows of the figures: docker's rows, its table and columns, its long form.

use crate::ops::container::Row as ContainerRow;
use crate::ops::image::list::{Row, Users};
use crate::store::containers::ContainerId;
use crate::text::format;
use crate::text::template::Value;

use super::{Df, Line};

const OF_CONTAINERS: &str = "Containers";
const OF_VOLUMES: &str = "Local Volumes";
const OF_BUILDS: &str = "Build Cache";

/// A row with its name.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// docker's TYPE.
    pub name: &'static str,
    /// The figures.
    pub line: Line,
}

impl Df {
    /// docker's rows in its order; Trash and leftovers only when there are any.
    pub fn rows(&self) -> Vec<Named> {
        let images = Named {
            name: "Images",
            line: self.images,
        };
        let containers = Named {
            name: OF_CONTAINERS,
            line: self.containers,
        };
        let volumes = Named {
            name: OF_VOLUMES,
            line: self.volumes,
        };
        let builds = Named {
            name: OF_BUILDS,
            line: self.builds,
        };
        let leftovers = Named {
            name: "Leftovers",
            line: self.leftovers,
        };
        let trash = Named {
            name: "Trash",
            line: self.trash,
        };
        let seldom = [trash, leftovers].into_iter();
        [images, containers, volumes, builds]
            .into_iter()
            .chain(seldom.filter(|row| row.line.count > 0))
            .collect()
    }

    /// The same and imports in flight, if there are any: together all that the store holds but its own records.
    pub fn all_rows(&self) -> Vec<Named> {
        let mut rows = self.rows();
        if self.imports > 0 {
            let line = Line {
                count: 1,
                active: 1,
                size: self.imports,
                reclaimable: 0,
            };
            rows.push(Named {
                name: "Imports",
                line,
            });
        }
        rows
    }
}

impl Line {
    /// `11.63MB (70%)`: the share is cut to an integer, and left out of nothing.
    pub fn reclaimable(&self) -> String {
        let bytes = format::human_size_4(self.reclaimable);
        let percent = u128::from(self.reclaimable) * 100;
        match percent.checked_div(u128::from(self.size)) {
            Some(percent) => format!("{bytes} ({percent}%)"),
            None => bytes,
        }
    }
}

impl Named {
    /// Whether only a walk tells it.
    pub fn is_walked(&self) -> bool {
        matches!(self.name, OF_CONTAINERS | OF_VOLUMES | OF_BUILDS)
    }

    /// The columns of [`HEADER`].
    pub fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_owned(),
            self.line.count.to_string(),
            self.line.active.to_string(),
            format::human_size_4(self.line.size),
            self.line.reclaimable(),
        ]
    }
}

/// The columns of docker's summary.
pub const HEADER: [&str; 5] = ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"];

/// docker's summary.
pub fn table(df: &Df) -> String {
    let rows: Vec<_> = df.all_rows().iter().map(Named::cells).collect();
    format::table(Some(&HEADER), &rows)
}

/// The columns a template knows, with the names a table gives them; docker's.
pub const COLUMNS: &[(&str, &str)] = &[
    ("Active", "ACTIVE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Size", "SIZE"),
    ("TotalCount", "TOTAL"),
    ("Type", "TYPE"),
];

/// The rows for a template.
pub fn values(df: &Df) -> Vec<Value> {
    let rows = df.all_rows().into_iter().map(|Named { name, line }| {
        Value::record(&[
            ("Active", line.active.to_string()),
            ("Reclaimable", line.reclaimable()),
            ("Size", format::human_size_4(line.size)),
            ("TotalCount", line.count.to_string()),
            ("Type", name.to_owned()),
        ])
    });
    rows.collect()
}

/// docker's `-v`: a row for each name, as `images -a` has them. SIZE is the sum of the two that follow.
pub fn verbose(
    df: &Df,
    rows: &[Row],
    all: &[ContainerRow],
    users: &Users,
    now: jiff::Timestamp,
) -> String {
    let header = [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "SHARED SIZE",
        "UNIQUE SIZE",
        "USERS",
    ];
    let cells = |row: &Row| {
        let of_image = df.of_image.get(&row.id).copied().unwrap_or_default();
        vec![
            row.repository_text(),
            row.tag_text(),
            row.id.short(),
            format::ago(row.created, now),
            format::human_size(of_image.shared.saturating_add(of_image.unique)),
            format::human_size(of_image.shared),
            format::human_size(of_image.unique),
            users.get(&row.id).copied().unwrap_or(0).to_string(),
        ]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    let table = format::table(Some(&header), &rows);
    let size = |id: &ContainerId| df.of_container.get(id).copied().unwrap_or(0);
    let containers = all
        .iter()
        .map(|row| row.disk_cells(size(row.container_id()), now));
    let containers: Vec<_> = containers.collect();
    let containers = format::table(Some(&CONTAINERS), &containers);
    let volumes = df.of_volume.iter().map(|row| {
        let size = row
            .size
            .map_or_else(|| "N/A".to_owned(), format::human_size);
        let users = row.users.unwrap_or(0).to_string();
        vec![row.volume.name.to_string(), users, size]
    });
    let volumes: Vec<_> = volumes.collect();
    let volumes = format::table(Some(&["VOLUME NAME", "LINKS", "SIZE"]), &volumes);
    format!(
        "Images space usage:\n\n{table}\nContainers space usage:\n\n{containers}\nLocal Volumes space usage:\n\n{volumes}\nBuild cache usage: {}\n\n",
        format::human_size(df.builds.size)
    )
}

/// docker's columns of containers in the long form.
const CONTAINERS: [&str; 8] = [
    "CONTAINER ID",
    "IMAGE",
    "COMMAND",
    "LOCAL VOLUMES",
    "SIZE",
    "CREATED",
    "STATUS",
    "NAMES",
];
