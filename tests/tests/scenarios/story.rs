//! The main story, complete, for scenarios that then disturb it.

use std::net::SocketAddr;

use portolan_tests::{Member, Project, Service};

/// Hub, bank and analysis with a portal to an echo service of the bank that is up.
pub(crate) struct Story {
    pub(crate) project: Project,
    pub(crate) bank: Member,
    pub(crate) analysis: Member,
    pub(crate) service: Service,
    /// Where analysis reaches the service.
    pub(crate) inlet: SocketAddr,
}

impl Story {
    /// With an echo service.
    #[track_caller]
    pub(crate) fn told() -> Self {
        Self::told_with(Service::echo())
    }

    /// With this service.
    #[track_caller]
    pub(crate) fn told_with(service: Service) -> Self {
        Self::told_at(Project::start(), service)
    }

    /// In this project, with this service.
    #[track_caller]
    pub(crate) fn told_at(project: Project, service: Service) -> Self {
        let bank = project.bank(service.address);
        let (analysis, inlet) = project.analysis();
        Self {
            project,
            bank,
            analysis,
            service,
            inlet,
        }
    }
}
