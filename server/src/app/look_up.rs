//! Where things lie: maps of volumes, logical devices, as pages.

use ashlar_openapi::logical_devices::{LogicalDeviceFilter, LogicalDeviceRun};
use ashlar_openapi::volumes::{MapFilter, MapRun, RangesOfFilter};
use ashlar_openapi::{Page, Problem, Range};
use uuid::Uuid;

use super::{App, internal};
use crate::api::incoming::Paging;

impl App {
    pub async fn volume_map(
        &self,
        _id: Uuid,
        _filter: &MapFilter,
        _paging: &Paging,
    ) -> Result<Page<MapRun>, Problem> {
        Err(internal())
    }

    pub async fn ranges_of(
        &self,
        _id: Uuid,
        _filter: &RangesOfFilter,
        _paging: &Paging,
    ) -> Result<Page<Range>, Problem> {
        Err(internal())
    }

    pub async fn logical_devices(
        &self,
        _filter: &LogicalDeviceFilter,
        _paging: &Paging,
    ) -> Result<Page<LogicalDeviceRun>, Problem> {
        Err(internal())
    }
}
