//! Every operation, in one table: method, path, id, tag, who may, scope, status, then (query, body) → answer.

use crate::accounts::{
    Me, NewToken, NewUser, PasswordChange, Refresh, Session, SignIn, Token, TokenFilter, TokenMade, User,
    UserChange, UserFilter,
};
use crate::appliance::{Appliance, ApplianceChange, CatalogRebuilt, Import};
use crate::audit::{AuditEntry, AuditFilter};
use crate::devices::{
    Device, DeviceChange, DeviceFilter, Examine, Examined, Identify, NewDevice, SpareChange,
};
use crate::events::{Event, EventFilter};
use crate::exports::{Export, ExportChange, ExportFilter, NewExport};
use crate::jobs::{Job, JobChange, JobFilter};
use crate::logical_devices::{LogicalDeviceFilter, LogicalDeviceRun};
use crate::operation::{Nothing, operations};
use crate::raid_groups::{
    Formatting, NewRaidGroup, RaidGroup, RaidGroupChange, RaidGroupFilter, RaidGroupMade, Replace,
};
use crate::scrubs::Scrub;
use crate::values::{Page, Range};
use crate::volumes::{
    Expand, MapFilter, MapRun, MorePlacements, NewVolume, RangesOfFilter, Volume, VolumeChange, VolumeFilter,
    VolumeMade,
};
use crate::webhooks::{
    Delivery, DeliveryFilter, NewWebhook, Probed, Webhook, WebhookChange, WebhookFilter, WebhookMade,
};

operations! {
    /// Look at the appliance.
    GetAppliance = Get "/appliance" "getAppliance" "appliance" Everybody ApplianceRead 200
        (Nothing, Nothing) -> Appliance [Tagged];
    /// Edit the appliance's name, number and limits.
    ChangeAppliance = Patch "/appliance" "changeAppliance" "appliance" Operators ApplianceOperate 200
        (Nothing, ApplianceChange) -> Appliance [IfMatch, Tagged, Idempotent];
    /// Take over the devices of an appliance that ran elsewhere.
    /// Only a blank appliance can. It becomes the one that the devices carry; exports are off until they are enabled.
    ImportAppliance = Post "/appliance/import" "importAppliance" "appliance" Operators ApplianceOperate 200
        (Nothing, Import) -> Appliance [Idempotent];
    /// Make the catalog's records of objects anew from the devices.
    /// Nothing is changed on the devices. Records of objects that the devices do not know are forgotten.
    RebuildCatalog = Post "/appliance/rebuild-catalog" "rebuildCatalog" "appliance" Operators ApplianceOperate 200
        (Nothing, Nothing) -> CatalogRebuilt [Idempotent];
    /// Read the OpenAPI document.
    GetOpenApi = Get "/openapi.json" "getOpenApi" "appliance" Public ApplianceRead 200
        (Nothing, Nothing) -> Nothing [WithoutCatalog, Raw];

    /// List the devices.
    ListDevices = Get "/devices" "listDevices" "devices" Everybody DevicesRead 200
        (DeviceFilter, Nothing) -> Page<Device> [Paged];
    /// Add a device.
    /// Whatever it holds is refused unless `force` says to give it up.
    AddDevice = Post "/devices" "addDevice" "devices" Operators DevicesOperate 201
        (Nothing, NewDevice) -> Device [Idempotent, Tagged];
    /// Look what a device is, changing nothing.
    ExamineDevice = Post "/devices/examine" "examineDevice" "devices" Operators DevicesRead 200
        (Nothing, Examine) -> Examined [WithoutCatalog];
    /// Look at a device.
    GetDevice = Get "/devices/{id}" "getDevice" "devices" Everybody DevicesRead 200
        (Nothing, Nothing) -> Device [Tagged];
    /// Name a device.
    ChangeDevice = Patch "/devices/{id}" "changeDevice" "devices" Operators DevicesOperate 200
        (Nothing, DeviceChange) -> Device [IfMatch, Tagged, Idempotent];
    /// Give a device back.
    /// Refused while it is a member of a RAID group. It is blank afterwards.
    RemoveDevice = Delete "/devices/{id}" "removeDevice" "devices" Operators DevicesOperate 204
        (Nothing, Nothing) -> Nothing [Idempotent];
    /// Take a device out of service.
    /// Its RAID group goes on without it. It stays out, over restarts too, until it is returned; it need not be there.
    FailDevice = Post "/devices/{id}/fail" "failDevice" "devices" Operators DevicesOperate 200
        (Nothing, Nothing) -> Device [Idempotent, Tagged];
    /// Take a device into service again that was absent, failed or was taken out.
    /// Its RAID group begins to copy to it what it missed.
    ReturnDevice = Post "/devices/{id}/return" "returnDevice" "devices" Operators DevicesOperate 200
        (Nothing, Nothing) -> Device [Idempotent, Tagged];
    /// Make a device a spare, or none any more.
    /// A spare takes the place of a lost member of a RAID group by itself, and is none any more then.
    SetSpare = Post "/devices/{id}/spare" "setSpare" "devices" Operators DevicesOperate 200
        (Nothing, SpareChange) -> Device [Idempotent, Tagged];
    /// Keep a device busy with reads so that its light shows where it is.
    IdentifyDevice = Post "/devices/{id}/identify" "identifyDevice" "devices" Operators DevicesOperate 202
        (Nothing, Identify) -> Job [Idempotent, Waits];

    /// List the RAID groups.
    ListRaidGroups = Get "/raid-groups" "listRaidGroups" "raid-groups" Everybody RaidGroupsRead 200
        (RaidGroupFilter, Nothing) -> Page<RaidGroup> [Paged];
    /// Make a RAID group of devices that are in none.
    CreateRaidGroup = Post "/raid-groups" "createRaidGroup" "raid-groups" Operators RaidGroupsOperate 201
        (Nothing, NewRaidGroup) -> RaidGroupMade [Idempotent, DryRun, Tagged];
    /// Look at a RAID group.
    GetRaidGroup = Get "/raid-groups/{id}" "getRaidGroup" "raid-groups" Everybody RaidGroupsRead 200
        (Nothing, Nothing) -> RaidGroup [Tagged];
    /// Name a RAID group, bound how fast it copies, have it scrubbed by a schedule, or say when spares take members' places.
    ChangeRaidGroup = Patch "/raid-groups/{id}" "changeRaidGroup" "raid-groups" Operators RaidGroupsOperate 200
        (Nothing, RaidGroupChange) -> RaidGroup [IfMatch, Tagged, Idempotent];
    /// Delete a RAID group.
    /// Refused while volumes lie on it. Its devices are free afterwards.
    DeleteRaidGroup = Delete "/raid-groups/{id}" "deleteRaidGroup" "raid-groups" Operators RaidGroupsOperate 204
        (Nothing, Nothing) -> Nothing [Idempotent];
    /// Put a free device in the place of a member.
    /// Asked for again while it is copied to, it answers the same job.
    ReplaceMember = Post "/raid-groups/{id}/replace" "replaceMember" "raid-groups" Operators RaidGroupsOperate 202
        (Nothing, Replace) -> Job [Idempotent, Waits];
    /// Make the free logical devices of a RAID group blank on its devices.
    /// They read as zeros before and after; what earlier owners left is overwritten, or its space given back. What is
    /// mapped is not touched. While that is being done, the same job is answered.
    FormatRaidGroup = Post "/raid-groups/{id}/format" "formatRaidGroup" "raid-groups" Operators RaidGroupsOperate 202
        (Nothing, Nothing) -> Formatting [Idempotent, Waits, DryRun];
    /// Compare what the members of a RAID group hold, and mend what does not fit where that is wanted.
    /// Hosts go on meanwhile. Refused while the group is being scrubbed.
    ScrubRaidGroup = Post "/raid-groups/{id}/scrub" "scrubRaidGroup" "raid-groups" Operators RaidGroupsOperate 202
        (Nothing, Scrub) -> Job [Idempotent, Waits];

    /// List the logical devices, as runs.
    ListLogicalDevices = Get "/logical-devices" "listLogicalDevices" "logical-devices" Everybody RaidGroupsRead 200
        (LogicalDeviceFilter, Nothing) -> Page<LogicalDeviceRun> [Paged];

    /// List the volumes.
    ListVolumes = Get "/volumes" "listVolumes" "volumes" Everybody VolumesRead 200
        (VolumeFilter, Nothing) -> Page<Volume> [Paged];
    /// Make a volume.
    CreateVolume = Post "/volumes" "createVolume" "volumes" Operators VolumesOperate 201
        (Nothing, NewVolume) -> VolumeMade [Idempotent, DryRun, Tagged];
    /// Look at a volume.
    GetVolume = Get "/volumes/{id}" "getVolume" "volumes" Everybody VolumesRead 200
        (Nothing, Nothing) -> Volume [Tagged];
    /// Rename a volume.
    ChangeVolume = Patch "/volumes/{id}" "changeVolume" "volumes" Operators VolumesOperate 200
        (Nothing, VolumeChange) -> Volume [IfMatch, Tagged, Idempotent];
    /// Delete a volume.
    /// Refused while it is exported. Nobody will ever read what it held.
    DeleteVolume = Delete "/volumes/{id}" "deleteVolume" "volumes" Operators VolumesOperate 204
        (Nothing, Nothing) -> Nothing [Idempotent];
    /// Map more ranges of a partial volume.
    PlaceVolume = Post "/volumes/{id}/placements" "placeVolume" "volumes" Operators VolumesOperate 200
        (Nothing, MorePlacements) -> VolumeMade [Idempotent, DryRun];
    /// Give a volume more capacity, in use or not.
    ExpandVolume = Post "/volumes/{id}/expand" "expandVolume" "volumes" Operators VolumesOperate 200
        (Nothing, Expand) -> VolumeMade [Idempotent, DryRun];
    /// See where a volume's addresses lie.
    MapVolume = Get "/volumes/{id}/map" "mapVolume" "volumes" Everybody VolumesRead 200
        (MapFilter, Nothing) -> Page<MapRun> [Paged];
    /// See which ranges of a volume lie on a RAID group, device or logical device.
    VolumeRangesOf = Get "/volumes/{id}/ranges-of" "volumeRangesOf" "volumes" Everybody VolumesRead 200
        (RangesOfFilter, Nothing) -> Page<Range> [Paged];

    /// List the exports.
    ListExports = Get "/exports" "listExports" "exports" Everybody ExportsRead 200
        (ExportFilter, Nothing) -> Page<Export> [Paged];
    /// Export a volume.
    CreateExport = Post "/exports" "createExport" "exports" Operators ExportsOperate 201
        (Nothing, NewExport) -> Export [Idempotent, Tagged];
    /// Look at an export.
    GetExport = Get "/exports/{id}" "getExport" "exports" Everybody ExportsRead 200
        (Nothing, Nothing) -> Export [Tagged];
    /// Edit an export.
    ChangeExport = Patch "/exports/{id}" "changeExport" "exports" Operators ExportsOperate 200
        (Nothing, ExportChange) -> Export [IfMatch, Tagged, Idempotent];
    /// Take an export away.
    /// Its connections are ended after what they have begun.
    DeleteExport = Delete "/exports/{id}" "deleteExport" "exports" Operators ExportsOperate 204
        (Nothing, Nothing) -> Nothing [Idempotent];

    /// List the jobs, the newest first.
    ListJobs = Get "/jobs" "listJobs" "jobs" Everybody JobsRead 200
        (JobFilter, Nothing) -> Page<Job> [Paged];
    /// Look at a job.
    GetJob = Get "/jobs/{id}" "getJob" "jobs" Everybody JobsRead 200
        (Nothing, Nothing) -> Job [Tagged, Waits];
    /// Change a job's rate limit.
    ChangeJob = Patch "/jobs/{id}" "changeJob" "jobs" Operators JobsOperate 200
        (Nothing, JobChange) -> Job [IfMatch, Tagged, Idempotent];
    /// Have a job wait.
    PauseJob = Post "/jobs/{id}/pause" "pauseJob" "jobs" Operators JobsOperate 200
        (Nothing, Nothing) -> Job [Idempotent, Tagged];
    /// Have a paused job go on.
    ResumeJob = Post "/jobs/{id}/resume" "resumeJob" "jobs" Operators JobsOperate 200
        (Nothing, Nothing) -> Job [Idempotent, Tagged];
    /// End a job early.
    CancelJob = Post "/jobs/{id}/cancel" "cancelJob" "jobs" Operators JobsOperate 200
        (Nothing, Nothing) -> Job [Idempotent, Tagged];

    /// Follow the events, or list them.
    /// `Accept: text/event-stream` follows, from `Last-Event-ID` or `after` on, or from now on; JSON is one page.
    ListEvents = Get "/events" "listEvents" "events" Everybody EventsRead 200
        (EventFilter, Nothing) -> Page<Event> [Paged];

    /// List the webhooks.
    ListWebhooks = Get "/webhooks" "listWebhooks" "webhooks" Operators WebhooksOperate 200
        (WebhookFilter, Nothing) -> Page<Webhook> [Paged];
    /// Have events sent somewhere.
    CreateWebhook = Post "/webhooks" "createWebhook" "webhooks" Operators WebhooksOperate 201
        (Nothing, NewWebhook) -> WebhookMade [Idempotent, Tagged];
    /// Look at a webhook.
    GetWebhook = Get "/webhooks/{id}" "getWebhook" "webhooks" Operators WebhooksOperate 200
        (Nothing, Nothing) -> Webhook [Tagged];
    /// Edit a webhook.
    ChangeWebhook = Patch "/webhooks/{id}" "changeWebhook" "webhooks" Operators WebhooksOperate 200
        (Nothing, WebhookChange) -> Webhook [IfMatch, Tagged, Idempotent];
    /// Delete a webhook.
    DeleteWebhook = Delete "/webhooks/{id}" "deleteWebhook" "webhooks" Operators WebhooksOperate 204
        (Nothing, Nothing) -> Nothing [Idempotent];
    /// Give a webhook another secret.
    /// Deliveries carry signatures by both for a day.
    RotateWebhookSecret = Post "/webhooks/{id}/rotate-secret" "rotateWebhookSecret" "webhooks" Operators WebhooksOperate 200
        (Nothing, Nothing) -> WebhookMade [Idempotent];
    /// Send a test event now, and tell how it went.
    ProbeWebhook = Post "/webhooks/{id}/probe" "probeWebhook" "webhooks" Operators WebhooksOperate 200
        (Nothing, Nothing) -> Probed;
    /// List a webhook's deliveries, the newest first.
    ListDeliveries = Get "/webhooks/{id}/deliveries" "listDeliveries" "webhooks" Operators WebhooksOperate 200
        (DeliveryFilter, Nothing) -> Page<Delivery> [Paged];
    /// Deliver an event once more.
    ResendDelivery = Post "/webhooks/{id}/deliveries/{delivery}/resend" "resendDelivery" "webhooks" Operators WebhooksOperate 200
        (Nothing, Nothing) -> Delivery [Idempotent];

    /// List the users.
    ListUsers = Get "/users" "listUsers" "users" Admins UsersManage 200
        (UserFilter, Nothing) -> Page<User> [Paged];
    /// Make a user.
    CreateUser = Post "/users" "createUser" "users" Admins UsersManage 201
        (Nothing, NewUser) -> User [Idempotent, Tagged];
    /// Look at a user.
    GetUser = Get "/users/{id}" "getUser" "users" Admins UsersManage 200
        (Nothing, Nothing) -> User [Tagged];
    /// Edit a user.
    ChangeUser = Patch "/users/{id}" "changeUser" "users" Admins UsersManage 200
        (Nothing, UserChange) -> User [IfMatch, Tagged, Idempotent];
    /// Delete a user, with tokens and sessions.
    DeleteUser = Delete "/users/{id}" "deleteUser" "users" Admins UsersManage 204
        (Nothing, Nothing) -> Nothing [Idempotent];

    /// List tokens: one's own, for admins everybody's.
    ListTokens = Get "/tokens" "listTokens" "tokens" Everybody SelfManage 200
        (TokenFilter, Nothing) -> Page<Token> [Paged];
    /// Make a token for oneself.
    CreateToken = Post "/tokens" "createToken" "tokens" Everybody SelfManage 201
        (Nothing, NewToken) -> TokenMade [Idempotent];
    /// Look at a token.
    GetToken = Get "/tokens/{id}" "getToken" "tokens" Everybody SelfManage 200
        (Nothing, Nothing) -> Token [Tagged];
    /// Revoke a token.
    RevokeToken = Delete "/tokens/{id}" "revokeToken" "tokens" Everybody SelfManage 204
        (Nothing, Nothing) -> Nothing [Idempotent];

    /// Sign in with name and password.
    SignInWithPassword = Post "/auth/login" "signIn" "auth" Public SelfManage 200
        (Nothing, SignIn) -> Session;
    /// Trade a refresh token for a new session.
    RefreshSession = Post "/auth/refresh" "refreshSession" "auth" Public SelfManage 200
        (Nothing, Refresh) -> Session;
    /// End the session of a refresh token.
    SignOut = Post "/auth/logout" "signOut" "auth" Public SelfManage 204
        (Nothing, Refresh) -> Nothing;
    /// See who one is here.
    GetMe = Get "/auth/me" "getMe" "auth" Everybody SelfManage 200
        (Nothing, Nothing) -> Me;
    /// Change one's own password.
    /// Ends one's other sessions.
    ChangePassword = Post "/auth/password" "changePassword" "auth" Everybody SelfManage 204
        (Nothing, PasswordChange) -> Nothing;
    /// Make new keys for sessions.
    /// Sessions signed by the former key stay good until they expire.
    RotateKeys = Post "/auth/rotate-keys" "rotateKeys" "auth" Admins UsersManage 204
        (Nothing, Nothing) -> Nothing;

    /// List the audit log, the newest first.
    ListAuditLog = Get "/audit-log" "listAuditLog" "audit-log" Operators AuditRead 200
        (AuditFilter, Nothing) -> Page<AuditEntry> [Paged];

    /// Gather logs, states and configuration, secrets left out.
    CreateSupportBundle = Post "/support-bundle" "createSupportBundle" "support-bundle" Operators SupportCreate 202
        (Nothing, Nothing) -> Job [Idempotent, Waits];
    /// Fetch a support bundle by its job's id, as a gzipped tar archive.
    GetSupportBundle = Get "/support-bundle/{id}" "getSupportBundle" "support-bundle" Operators SupportCreate 200
        (Nothing, Nothing) -> Nothing [Raw];
}

/// Prometheus metrics stand outside of `/api/v1` and need this scope.
pub const METRICS_SCOPE: crate::access::Scope = crate::access::Scope::MetricsRead;
