//! One run: what was started, and the loop that keeps it up to date with the directory.

use std::{ffi::OsString, io, path::Path, time::Duration};

use tempfile::TempDir;

use super::{
    Error, Settings, Signals, admin,
    child::{Child, Group},
    directory::Directory,
    plan::{self, Placement},
    processes,
    publish::Publication,
    report::{self, Statement, Statements},
    say, state,
    watch::Watch,
};

/// How long the proxies may take to start.
const START: Duration = Duration::from_secs(10);

/// Everything that runs. Dropping it kills what was started.
pub(super) struct Session {
    mesh: Mesh,
    watch: Watch,
    programs: Group,
    proxies: Group,
    // Removed at the end.
    _folder: TempDir,
}

/// The state in force.
struct Mesh {
    directory: Directory,
    placements: Vec<Placement>,
    publication: Publication,
    statements: Statements,
}

impl Session {
    /// Compiles, then starts the proxies, then the processes: these find their proxies ready.
    pub(super) async fn start(settings: &Settings) -> Result<Self, Error> {
        let given = &settings.directory;
        let path =
            given.canonicalize().map_err(|source| Error::Directory { directory: given.clone(), source })?;
        let placements = plan::place(processes::read(&path)?).map_err(system("find free ports"))?;
        let proxy = settings.proxy.canonicalize();
        let proxy = proxy.map_err(|_| Error::NoProxy { program: settings.proxy.clone() })?;
        let folder = tempfile::Builder::new().prefix("ferrule-local-").tempdir();
        let folder = folder.map_err(system("make a temporary directory"))?;
        let publication = Publication::new(folder.path()).map_err(system("make a temporary directory"))?;
        // The watch begins before the first reading, so that no edit falls in between.
        let watch = Watch::start(&path).map_err(|source| Error::Watch { directory: path.clone(), source })?;
        let mut mesh =
            Mesh { directory: Directory::new(&path), placements, publication, statements: Statements::new() };
        mesh.directory.read();
        mesh.refresh()?;

        let mut proxies = Group::default();
        for placement in &mesh.placements {
            proxies.push(start_proxy(&proxy, &mesh.publication, placement)?);
        }
        await_proxies(&mut proxies, &mesh.placements).await?;
        let mut programs = Group::default();
        for placement in &mesh.placements {
            programs.push(start_program(&path, placement)?);
            say(&format!("started   {} (proxy: http://{})", placement.process.name, placement.admin));
        }
        say(&format!(
            "ready     {} processes in the mesh of {}; Ctrl-C ends them",
            programs.len(),
            path.display()
        ));
        Ok(Self { mesh, watch, programs, proxies, _folder: folder })
    }

    /// Follows the directory until the end.
    pub(super) async fn run(mut self, mut signals: Signals) -> Result<(), Error> {
        let ended = loop {
            tokio::select! {
                () = signals.any() => break Ok(()),
                (process, how) = self.proxies.exited() => {
                    break Err(Error::Proxy { process, what: format!("has ended ({how})") });
                }
                (process, how) = self.programs.exited() => {
                    say(&format!("ended     {process} ({how})"));
                    if self.programs.is_empty() {
                        break Ok(());
                    }
                }
                began = self.watch.edited() => {
                    if self.mesh.directory.read() {
                        self.mesh.edited(began);
                    }
                }
            }
        };
        // Applications first: until their end they may need their proxies.
        self.programs.stop().await;
        self.proxies.stop().await;
        ended
    }
}

impl Mesh {
    fn edited(&mut self, began: tokio::time::Instant) {
        match self.refresh() {
            Ok(true) => say(&format!("applied   {} ms after the edit", began.elapsed().as_millis())),
            Ok(false) => {}
            Err(error) => say(&format!("error     {error}; the last good state stays in force")),
        }
    }

    /// Compiles what was read and hands it to the proxies; whether that changed anything for them.
    fn refresh(&mut self) -> Result<bool, Error> {
        let state = state::build(&self.directory.objects(), &self.placements)?;
        let published =
            self.publication.publish(state.content).map_err(system("write the proxies' objects"))?;
        let problems = self.directory.problems().into_iter();
        let mut statements = state.statements;
        statements.extend(problems.map(|(subject, problem)| (subject, Statement::Problem(problem))));
        for line in report::changes(&self.statements, &statements) {
            say(&line);
        }
        self.statements = statements;
        Ok(published)
    }
}

fn start_proxy(proxy: &Path, publication: &Publication, placement: &Placement) -> Result<Child, Error> {
    let mut discovery = OsString::from("dir:");
    discovery.push(publication.directory());
    let given = |variable, default: &str| std::env::var_os(variable).unwrap_or_else(|| default.into());
    let mut environment = vec![
        ("FERRULE_DISCOVERY", discovery),
        ("FERRULE_REDIRECTED", "false".into()),
        ("FERRULE_WORKERS", given("FERRULE_WORKERS", "1")),
        ("FERRULE_DRAIN_SECONDS", "1".into()),
        ("FERRULE_LOG", given("FERRULE_LOG", "warn")),
    ];
    environment.extend(placement.environment().into_iter().map(|(variable, value)| (variable, value.into())));
    let name = format!("{} proxy", placement.process.name);
    let command = [proxy.into()];
    Child::start(&name, &command, publication.directory(), environment)
        .map_err(|source| Error::Start { name, source })
}

async fn await_proxies(proxies: &mut Group, placements: &[Placement]) -> Result<(), Error> {
    for placement in placements {
        tokio::select! {
            (process, how) = proxies.exited() => {
                return Err(Error::Proxy { process, what: format!("did not start ({how})") });
            }
            ready = admin::ready(placement.admin, START) => if !ready {
                let process = placement.process.name.clone();
                return Err(Error::Proxy { process, what: format!("was not ready within {START:?}") });
            }
        }
    }
    Ok(())
}

fn start_program(directory: &Path, placement: &Placement) -> Result<Child, Error> {
    let process = &placement.process;
    let mut command: Vec<OsString> = process.command.iter().map(Into::into).collect();
    // A path with a slash counts from the directory, wherever `ferrule local` was started.
    if let Some(program) = command.first_mut().filter(|program| program.to_string_lossy().contains('/')) {
        *program = directory.join(&*program).into_os_string();
    }
    Child::start(&process.name, &command, directory, &process.env)
        .map_err(|source| Error::Start { name: process.name.clone(), source })
}

fn system(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::System { what, source }
}
