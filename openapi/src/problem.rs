//! Errors as problem documents (RFC 9457), from one closed list.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::values::{Bytes, Natural, Range};

/// Begins every `type`.
pub const PREFIX: &str = "urn:ashlar:problem:";

/// Declares the closed list: variant, status, slug, title.
macro_rules! problems {
    ($($variant:ident = $status:literal $slug:literal: $title:literal,)*) => {
        /// What kind of problem it is: stable, one of a closed list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum ProblemType {
            $(#[serde(rename = $slug)] $variant,)*
        }

        impl ProblemType {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// HTTP status.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)*
                }
            }

            /// The URI that stands in `type`.
            pub fn uri(self) -> &'static str {
                match self {
                    $(Self::$variant => $slug,)*
                }
            }

            /// The same for every problem of this type.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)*
                }
            }
        }

        crate::values::words!(ProblemType, Self::ALL.iter().map(|kind| kind.uri()), "What kind of problem it is: stable, one of a closed list.");
    };
}

problems! {
    // The request itself.
    MalformedJson = 400 "urn:ashlar:problem:malformed-json": "The body is not JSON",
    UnknownField = 422 "urn:ashlar:problem:unknown-field": "The body has a field that this operation does not know",
    MissingField = 422 "urn:ashlar:problem:missing-field": "The body lacks a field",
    InvalidValue = 422 "urn:ashlar:problem:invalid-value": "A value is none that this field can have",
    UnknownParameter = 400 "urn:ashlar:problem:unknown-parameter": "The query has a parameter that this operation does not know",
    InvalidParameter = 400 "urn:ashlar:problem:invalid-parameter": "A parameter of query or path has a value that it cannot have",
    InvalidCursor = 400 "urn:ashlar:problem:invalid-cursor": "The cursor is none of this list",
    InvalidHeader = 400 "urn:ashlar:problem:invalid-header": "A header has a value that it cannot have",
    BodyTooLarge = 413 "urn:ashlar:problem:body-too-large": "The body is larger than any request's",
    UnsupportedMediaType = 415 "urn:ashlar:problem:unsupported-media-type": "The body is of another type than JSON",
    NotAcceptable = 406 "urn:ashlar:problem:not-acceptable": "The answer cannot be given in a type that the client accepts",
    NoSuchPath = 404 "urn:ashlar:problem:no-such-path": "There is nothing at this path",
    MethodNotAllowed = 405 "urn:ashlar:problem:method-not-allowed": "The path does not know this method",
    // Who asks.
    NotSignedIn = 401 "urn:ashlar:problem:not-signed-in": "The request carries no valid credential",
    SignInFailed = 401 "urn:ashlar:problem:sign-in-failed": "User name or password is wrong",
    SignInLimited = 429 "urn:ashlar:problem:sign-in-limited": "Too many failed sign-ins",
    RefreshTokenInvalid = 401 "urn:ashlar:problem:refresh-token-invalid": "The refresh token is not valid any more",
    RoleForbidden = 403 "urn:ashlar:problem:role-forbidden": "The user's role may not do this",
    ScopeForbidden = 403 "urn:ashlar:problem:scope-forbidden": "The token's scopes do not hold this",
    // Objects and their editing.
    NoSuchObject = 404 "urn:ashlar:problem:no-such-object": "There is no such object",
    UnknownReference = 422 "urn:ashlar:problem:unknown-reference": "The body names an object that does not exist",
    ObjectMissing = 409 "urn:ashlar:problem:object-missing": "The catalog knows the object, the devices do not",
    IdTaken = 409 "urn:ashlar:problem:id-taken": "Another object has this id",
    NameTaken = 409 "urn:ashlar:problem:name-taken": "Another object has this name",
    NumberTaken = 409 "urn:ashlar:problem:number-taken": "Another object has this number",
    PreconditionRequired = 428 "urn:ashlar:problem:precondition-required": "An edit needs If-Match",
    Stale = 412 "urn:ashlar:problem:stale": "The object was changed since it was read",
    IdempotencyKeyReused = 422 "urn:ashlar:problem:idempotency-key-reused": "The key was used for another request",
    // The appliance.
    CatalogUnavailable = 503 "urn:ashlar:problem:catalog-unavailable": "The catalog is away; hosts are served all the same",
    ApplianceBlank = 409 "urn:ashlar:problem:appliance-blank": "The appliance has no device yet",
    ApplianceNotBlank = 409 "urn:ashlar:problem:appliance-not-blank": "The appliance has devices already",
    ApplianceUnavailable = 503 "urn:ashlar:problem:appliance-unavailable": "The appliance's devices could not be opened",
    MetadataNotDurable = 503 "urn:ashlar:problem:metadata-not-durable": "The change could not be made durable on enough devices",
    MetadataUnavailable = 503 "urn:ashlar:problem:metadata-unavailable": "The metadata takes no changes now; nothing was changed",
    Busy = 503 "urn:ashlar:problem:busy": "The appliance handles as many requests as it can",
    Stopping = 503 "urn:ashlar:problem:stopping": "The appliance is stopping",
    Internal = 500 "urn:ashlar:problem:internal": "The appliance made a mistake",
    // Devices.
    DeviceCannotBeOpened = 422 "urn:ashlar:problem:device-cannot-be-opened": "The device cannot be opened",
    DeviceTooSmall = 422 "urn:ashlar:problem:device-too-small": "The device is too small",
    DeviceForeignAppliance = 409 "urn:ashlar:problem:device-foreign-appliance": "The device belongs to another appliance",
    DeviceForeignContent = 409 "urn:ashlar:problem:device-foreign-content": "The device holds something else",
    DeviceKnown = 409 "urn:ashlar:problem:device-known": "The device belongs to this appliance already",
    DeviceAbsent = 409 "urn:ashlar:problem:device-absent": "The device is not there",
    DeviceInService = 409 "urn:ashlar:problem:device-in-service": "The device is in service",
    DeviceIsSpare = 409 "urn:ashlar:problem:device-is-spare": "The device is kept as a spare",
    DeviceInUse = 409 "urn:ashlar:problem:device-in-use": "The device is a member of a RAID group",
    LastDevice = 409 "urn:ashlar:problem:last-device": "It is the only device, which holds the appliance's metadata",
    WouldLoseData = 409 "urn:ashlar:problem:would-lose-data": "Data would be lost with it",
    // RAID groups.
    NotAMember = 409 "urn:ashlar:problem:not-a-member": "The device is no member of the RAID group",
    TooFewMembers = 422 "urn:ashlar:problem:too-few-members": "The level needs more members",
    TooManyMembers = 422 "urn:ashlar:problem:too-many-members": "A RAID group has fewer members",
    MemberTwice = 422 "urn:ashlar:problem:member-twice": "A device is named twice",
    NoRoom = 422 "urn:ashlar:problem:no-room": "The members have no room for one logical device",
    MemberTooSmall = 422 "urn:ashlar:problem:member-too-small": "The device is smaller than the group's members",
    MemberBlock = 422 "urn:ashlar:problem:member-block": "The device has larger blocks than its group serves",
    NoRedundancy = 422 "urn:ashlar:problem:no-redundancy": "The RAID group's level bears no loss",
    RaidGroupWaiting = 409 "urn:ashlar:problem:raid-group-waiting": "The RAID group waits for members",
    RaidGroupInUse = 409 "urn:ashlar:problem:raid-group-in-use": "Volumes lie on the RAID group",
    ScrubRunning = 409 "urn:ashlar:problem:scrub-running": "The RAID group is being scrubbed",
    // Volumes.
    NoPlacement = 422 "urn:ashlar:problem:no-placement": "Neither placements nor a RAID group are given",
    CapacityInvalid = 422 "urn:ashlar:problem:capacity-invalid": "The volume cannot have this capacity",
    VolumeShrinks = 422 "urn:ashlar:problem:volume-shrinks": "A volume cannot shrink",
    EmulationUnsupported = 422 "urn:ashlar:problem:emulation-unsupported": "The emulation type is not supported here",
    BlockMismatch = 422 "urn:ashlar:problem:block-mismatch": "The RAID group serves larger blocks than the volume has",
    RangeEmpty = 422 "urn:ashlar:problem:range-empty": "The range has no length",
    RangeOverflow = 422 "urn:ashlar:problem:range-overflow": "Offset and length of the range add up to too much",
    RangeOutOfBounds = 422 "urn:ashlar:problem:range-out-of-bounds": "The range reaches beyond the volume",
    RangeMisaligned = 422 "urn:ashlar:problem:range-misaligned": "The range does not begin and end at blocks",
    RangesOverlap = 422 "urn:ashlar:problem:ranges-overlap": "Two ranges overlap",
    RangeMapped = 409 "urn:ashlar:problem:range-mapped": "Part of the range is mapped already",
    TrackInvalid = 422 "urn:ashlar:problem:track-invalid": "The volume has no such track",
    NotEnoughSpace = 507 "urn:ashlar:problem:not-enough-space": "There are too few free logical devices",
    VolumeExported = 409 "urn:ashlar:problem:volume-exported": "The volume is exported",
    VolumeNotServing = 409 "urn:ashlar:problem:volume-not-serving": "The volume is not served",
    // Jobs, webhooks, accounts.
    JobState = 409 "urn:ashlar:problem:job-state": "The job is in a state that does not allow this",
    JobKind = 409 "urn:ashlar:problem:job-kind": "Jobs of this kind do not know this verb",
    LastAdmin = 409 "urn:ashlar:problem:last-admin": "Nobody would be left to manage accounts",
    PasswordWeak = 422 "urn:ashlar:problem:password-weak": "The password is too weak",
}

/// What would have been right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Correction {
    /// For people.
    pub text: String,
    /// Values or states that would have been accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// The range nearest to the one given that is legal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub nearest_range: Option<Range>,
    /// What lacks where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingSpace>,
    /// When it makes sense to try again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retry_after_s: Option<u32>,
}

/// Space that a RAID group lacks for a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MissingSpace {
    pub raid_group: Uuid,
    pub missing_bytes: Bytes,
    pub free_bytes: Bytes,
    /// Logical devices.
    pub missing_logical_devices: Natural,
}

/// A problem document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: ProblemType,
    /// The same for every problem of this type.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong this time, in one sentence.
    pub cause: String,
    pub correction: Box<Correction>,
    /// JSON pointer to the offending field of the body, or the name of the parameter or header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub pointer: Option<String>,
    /// Stands in the appliance's log too.
    #[serde(default)]
    pub request_id: String,
}

impl Problem {
    /// A problem with its cause and, for people, what would have been right.
    pub fn new(kind: ProblemType, cause: impl Into<String>, correction: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status(),
            cause: cause.into(),
            correction: Box::new(Correction {
                text: correction.into(),
                ..Correction::default()
            }),
            pointer: None,
            request_id: String::new(),
        }
    }

    /// Names the offending field, parameter or header.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// Says which values or states would have been accepted.
    #[must_use]
    pub fn allowing<T: Into<String>>(mut self, allowed: impl IntoIterator<Item = T>) -> Self {
        self.correction.allowed = allowed.into_iter().map(Into::into).collect();
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.cause, self.correction.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_unique_uris_with_error_statuses() {
        let mut uris: Vec<_> = ProblemType::ALL.iter().map(|kind| kind.uri()).collect();
        assert!(uris.iter().all(|uri| uri.starts_with(PREFIX)));
        assert!(
            ProblemType::ALL
                .iter()
                .all(|kind| (400..600).contains(&kind.status()))
        );
        uris.sort_unstable();
        uris.dedup();
        assert_eq!(uris.len(), ProblemType::ALL.len());
    }
}
