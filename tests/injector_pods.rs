//! The injector against a table of pods: the patch is applied as the API server would, then the pod is looked at.

use ferrule::injector::{Context, Decision, Refusal, Settings, Skip, inject, podsecurity::Level};
use serde_json::{Value, json};

const NAMESPACE: &str = "shop";

fn settings() -> Settings {
    Settings::new("ferrule/ferrule-proxy:1.2.3")
}

fn decide(pod: &Value) -> Result<Decision, Refusal> {
    inject(pod, &Context { namespace: NAMESPACE, pod_security: None }, &settings())
}

fn injected_with_warnings(pod: &Value) -> (Value, Vec<String>) {
    let Decision::Inject { patch, warnings } = decide(pod).expect("not refused") else { panic!("skipped") };
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).expect("the patch applies");
    (pod, warnings)
}

fn injected(pod: &Value) -> Value {
    injected_with_warnings(pod).0
}

fn refused(pod: &Value) -> String {
    decide(pod).expect_err("refused").to_string()
}

/// A pod from YAML of its metadata and spec, as a user would write it.
fn pod(yaml: &str) -> Value {
    let mut pod: Value = serde_saphyr::from_str(yaml).expect("YAML");
    if pod.get("metadata").is_none() {
        pod["metadata"] = json!({"name": "web"});
    }
    pod
}

fn plain() -> Value {
    pod("spec: {containers: [{name: app, image: app}]}")
}

fn annotated(name: &str, value: &str) -> Value {
    let mut pod = plain();
    pod["metadata"]["annotations"] = json!({ name: value });
    pod
}

fn names(pod: &Value) -> Vec<&str> {
    pod["spec"]["initContainers"]
        .as_array()
        .expect("init containers")
        .iter()
        .map(|container| container["name"].as_str().expect("a name"))
        .collect()
}

fn init(pod: &Value) -> &Value {
    &pod["spec"]["initContainers"][0]
}

fn sidecar(pod: &Value) -> &Value {
    &pod["spec"]["initContainers"][1]
}

fn env<'a>(container: &'a Value, name: &str) -> &'a Value {
    container["env"]
        .as_array()
        .expect("env")
        .iter()
        .find(|variable| variable["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

/// All kinds of pods that are injected; laws are checked on each of them.
fn table() -> Vec<(&'static str, Value)> {
    vec![
        ("plain", plain()),
        ("of a Deployment", pod("
metadata:
  generateName: web-6d4cf56db6-
  labels: {app: web, pod-template-hash: 6d4cf56db6}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-6d4cf56db6, uid: x, controller: true}]
spec: {containers: [{name: app, image: app}, {name: helper, image: helper}]}")),
        ("of a Job", pod("
metadata: {generateName: job-, labels: {job-name: job}}
spec: {restartPolicy: Never, containers: [{name: app, image: app}]}")),
        ("of a StatefulSet with volumes", pod("
metadata: {name: db-0, generateName: db-, labels: {statefulset.kubernetes.io/pod-name: db-0}}
spec:
  subdomain: db
  containers: [{name: app, image: app, volumeMounts: [{name: data, mountPath: /data}]}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data-db-0}}]")),
        ("of a DaemonSet", pod("
metadata: {generateName: agent-, annotations: {other: annotation}}
spec:
  containers: [{name: app, image: app}]
  tolerations: [{operator: Exists}]
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: []}}}")),
        ("with init containers and a native sidecar", pod("
spec:
  containers: [{name: app, image: app}]
  initContainers:
    - {name: migrate, image: migrate}
    - {name: logs, image: logs, restartPolicy: Always, startupProbe: {tcpSocket: {port: 4000}}}")),
        ("with probes", pod("
spec:
  containers:
    - name: app
      image: app
      ports: [{name: web, containerPort: 8080}, {name: web, containerPort: 53, protocol: UDP}]
      startupProbe: {tcpSocket: {port: web}, failureThreshold: 30}
      readinessProbe: {httpGet: {path: /healthz, port: web}}
      livenessProbe: {tcpSocket: {port: 9000}, periodSeconds: 7}")),
        ("with a strict securityContext", pod("
spec:
  automountServiceAccountToken: false
  shareProcessNamespace: true
  securityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000, seccompProfile: {type: Localhost, localhostProfile: x.json}}
  containers: [{name: app, image: app, securityContext: {allowPrivilegeEscalation: false}}]")),
        ("with every annotation", pod("
metadata:
  name: web
  annotations:
    ferrule.dev/exclude-inbound-ports: 22,9090
    ferrule.dev/exclude-outbound-ports: '3306'
    ferrule.dev/exclude-outbound-addresses: 169.254.169.254,10.0.0.0/8
    ferrule.dev/exclude-uids: '1337'
    ferrule.dev/log-level: info,ferrule_proxy::route=debug
    ferrule.dev/access-log: json
    ferrule.dev/access-log-filter: errors
    ferrule.dev/proxy-cpu-request: 100m
    ferrule.dev/proxy-cpu-limit: '1'
    ferrule.dev/proxy-memory-request: 64Mi
    ferrule.dev/proxy-memory-limit: 1024Mi
    ferrule.dev/drain-seconds: '20'
    kubectl.kubernetes.io/default-container: second
spec: {containers: [{name: app, image: app}, {name: second, image: second}]}")),
        ("with fields from the future", pod("
metadata: {name: web, futureField: {a: 1}}
spec:
  futureField: [1, {b: 2}]
  containers: [{name: app, image: app, futureField: true, livenessProbe: {tcpSocket: {port: 80}, futureField: 3}}]
  initContainers: [{name: first, image: first, futureField: x}]
  volumes: [{name: v, futureSource: {}}]")),
        ("with empty lists and null", json!({
            "metadata": {"name": "web", "annotations": {}},
            "spec": {"containers": [{"name": "app"}], "initContainers": [], "volumes": null},
        })),
        ("copied from a running pod of an older version", copied()),
    ]
}

/// A pod that was injected by an older version and went through the API server.
fn copied() -> Value {
    let mut pod = injected(&pod("
spec:
  containers: [{name: app, image: app, livenessProbe: {tcpSocket: {port: 80}}}]
  initContainers: [{name: migrate, image: migrate}]"));
    pod["metadata"]["annotations"]["ferrule.dev/injected"] = json!("0.0.1");
    let containers = pod["spec"]["initContainers"].as_array_mut().expect("init containers");
    for container in containers.iter_mut() {
        container["terminationMessagePath"] = json!("/dev/termination-log");
    }
    containers[1]["image"] = json!("ferrule/ferrule-proxy:0.0.1");
    pod
}

#[test]
fn injecting_twice_is_injecting_once() {
    for (what, pod) in table() {
        let once = injected(&pod);
        let Decision::Inject { patch, .. } = decide(&once).expect("not refused") else { panic!("skipped") };
        assert!(patch.is_empty(), "{what}: {patch}");
    }
}

#[test]
fn the_redirect_comes_first_then_the_sidecar_then_what_the_user_has() {
    for (what, pod) in table() {
        let injected = injected(&pod);
        assert_eq!(names(&injected)[..2], ["ferrule-init", "ferrule-proxy"], "{what}");
        let theirs: Vec<&Value> = pod["spec"]["initContainers"].as_array().into_iter().flatten().collect();
        let theirs: Vec<&str> = theirs
            .iter()
            .map(|container| container["name"].as_str().expect("a name"))
            .filter(|name| !name.starts_with("ferrule-"))
            .collect();
        assert_eq!(names(&injected)[2..], theirs, "{what}");
        assert_eq!(sidecar(&injected)["restartPolicy"], "Always", "{what}");
        assert_eq!(init(&injected).get("restartPolicy"), None, "{what}");
    }
}

/// What the injector changed, taken away again, leaves the pod as it was.
#[test]
fn nothing_but_probes_is_changed_or_lost() {
    for (what, original) in table() {
        if original["metadata"]["annotations"].get("ferrule.dev/injected").is_some() {
            continue;
        }
        let mut left = injected(&original);
        let spec = left["spec"].as_object_mut().expect("spec");
        spec["initContainers"].as_array_mut().expect("list").drain(..2);
        spec["volumes"].as_array_mut().expect("list").retain(|volume| !is_ours(volume));
        let annotations = left["metadata"]["annotations"].as_object_mut().expect("annotations");
        annotations.remove("ferrule.dev/injected").expect("marked");
        if original["metadata"]["annotations"].get("kubectl.kubernetes.io/default-container").is_none() {
            annotations.remove("kubectl.kubernetes.io/default-container").expect("a default container");
        }
        assert_eq!(without_probes_and_emptiness(left), without_probes_and_emptiness(original), "{what}");
    }
}

fn is_ours(volume: &Value) -> bool {
    ["ferrule-api", "ferrule-identity"].iter().any(|name| volume["name"] == *name)
}

fn without_probes_and_emptiness(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(key, _)| !["tcpSocket", "httpGet", "grpc"].contains(&key.as_str()))
                .map(|(key, value)| (key, without_probes_and_emptiness(value)))
                .filter(|(_, value)| !(value.is_null() || *value == json!([]) || *value == json!({})))
                .collect(),
        ),
        Value::Array(items) => items.into_iter().map(without_probes_and_emptiness).collect(),
        value => value,
    }
}

/// Pod Security "restricted", the fields that concern a container.
#[test]
fn the_sidecar_is_restricted_whatever_the_pod_says() {
    for (what, pod) in table() {
        let pod = injected(&pod);
        let context = &sidecar(&pod)["securityContext"];
        assert_eq!(context["runAsUser"], 15100, "{what}");
        assert_eq!(context["runAsGroup"], 15100, "{what}");
        assert_eq!(context["runAsNonRoot"], true, "{what}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{what}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{what}");
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{what}");
        assert_eq!(context["seccompProfile"], json!({"type": "RuntimeDefault"}), "{what}");
    }
}

#[test]
fn the_init_container_is_root_with_one_capability_whatever_the_pod_says() {
    for (what, pod) in table() {
        let pod = injected(&pod);
        let context = &init(&pod)["securityContext"];
        assert_eq!((&context["runAsUser"], &context["runAsNonRoot"]), (&json!(0), &json!(false)), "{what}");
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN"]}), "{what}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{what}");
        assert_eq!(init(&pod)["args"], json!(["redirect"]), "{what}");
        assert_eq!(init(&pod).get("volumeMounts"), None, "no credentials: {what}");
    }
}

#[test]
fn credentials_are_mounted_in_the_sidecar_alone() {
    for (what, pod) in table() {
        let pod = injected(&pod);
        let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
        let ours: Vec<_> = volumes.iter().filter(|volume| is_ours(volume)).collect();
        assert_eq!(ours.len(), 2, "{what}");
        for volume in ours {
            let token = &volume["projected"]["sources"][0]["serviceAccountToken"];
            assert_eq!(token["expirationSeconds"], 3600, "{what}");
            // Each token is good for one thing.
            let audience = (volume["name"] == "ferrule-identity").then_some("ferrule.dev/identity");
            assert_eq!(token["audience"].as_str(), audience, "{what}");
            let optional = (volume["name"] == "ferrule-identity").then_some(true);
            let config_map = &volume["projected"]["sources"][1]["configMap"];
            assert_eq!(config_map["optional"].as_bool(), optional, "no pod waits for the operator: {what}");
            let labels = volume["projected"]["sources"][2]["downwardAPI"]["items"][0].clone();
            let expected = json!({"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}});
            let expected = if volume["name"] == "ferrule-identity" { expected } else { Value::Null };
            assert_eq!(labels, expected, "policies select by labels: {what}");
        }
        let mounts = json!([
            {"name": "ferrule-api", "mountPath": "/var/run/secrets/ferrule.dev/api", "readOnly": true},
            {"name": "ferrule-identity", "mountPath": "/var/run/secrets/ferrule.dev/identity", "readOnly": true},
        ]);
        assert_eq!(sidecar(&pod)["volumeMounts"], mounts, "{what}");
        let others = pod["spec"]["containers"].to_string();
        assert!(!others.contains("ferrule-api") && !others.contains("ferrule-identity"), "{what}");
    }
}

#[test]
fn variables_are_what_the_proxy_reads() {
    let pod =
        injected(&table().into_iter().find(|(what, _)| *what == "with every annotation").expect("there").1);
    for (name, value) in [
        ("FERRULE_PROXY_UID", "15100"),
        ("FERRULE_OUTBOUND_PORT", "15101"),
        ("FERRULE_INBOUND_PORT", "15102"),
        ("FERRULE_EXCLUDE_INBOUND_PORTS", "22,9090,15110"),
        ("FERRULE_EXCLUDE_OUTBOUND_PORTS", "3306"),
        ("FERRULE_EXCLUDE_OUTBOUND_ADDRESSES", "169.254.169.254,10.0.0.0/8"),
        ("FERRULE_EXCLUDE_UIDS", "1337"),
    ] {
        assert_eq!(env(init(&pod), name)["value"], value, "{name}");
    }
    let sidecar = sidecar(&pod);
    assert_eq!(env(sidecar, "FERRULE_LOG")["value"], "info,ferrule_proxy::route=debug");
    assert_eq!(env(sidecar, "FERRULE_ACCESS_LOG")["value"], "json");
    assert_eq!(env(sidecar, "FERRULE_ACCESS_LOG_FILTER")["value"], "errors");
    assert_eq!(env(sidecar, "FERRULE_DRAIN_SECONDS")["value"], "20");
    let service = "ferrule-identity.ferrule-system.svc:15113";
    assert_eq!(env(sidecar, "FERRULE_IDENTITY")["value"], service);
    assert_eq!(env(sidecar, "FERRULE_TRUST_DOMAIN")["value"], "cluster.local");
    assert_eq!(env(sidecar, "FERRULE_SYSTEM_NAMESPACE")["value"], "ferrule-system");
    for (name, path) in [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_IPS", "status.podIPs"),
        ("FERRULE_NODE", "spec.nodeName"),
        ("FERRULE_ZONE", "metadata.labels['topology.kubernetes.io/zone']"),
        ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
    ] {
        assert_eq!(env(sidecar, name)["valueFrom"]["fieldRef"]["fieldPath"], path, "{name}");
    }
    let resources =
        json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "1024Mi"}});
    assert_eq!(sidecar["resources"], resources);
    assert_eq!(init(&pod)["resources"], resources, "or the pod would lose its QoS class");
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["kubectl.kubernetes.io/default-container"], "second", "the user's word stands");
}

#[test]
fn defaults_come_from_the_settings() {
    let pod = injected(&plain());
    assert_eq!(sidecar(&pod)["image"], "ferrule/ferrule-proxy:1.2.3");
    assert_eq!(sidecar(&pod).get("imagePullPolicy"), None);
    let resources = json!({"requests": {"cpu": "10m", "memory": "20Mi"}, "limits": {"memory": "256Mi"}});
    assert_eq!(sidecar(&pod)["resources"], resources);
    assert_eq!(env(init(&pod), "FERRULE_EXCLUDE_INBOUND_PORTS")["value"], "15110");
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["kubectl.kubernetes.io/default-container"], "app");
    assert_eq!(annotations["ferrule.dev/injected"], env!("CARGO_PKG_VERSION"));

    let mut settings = settings();
    settings.proxy.image_pull_policy = Some("Always".into());
    let context = Context { namespace: NAMESPACE, pod_security: None };
    let Ok(Decision::Inject { patch, .. }) = inject(&plain(), &context, &settings) else {
        panic!("not injected")
    };
    assert_eq!(patch.to_string().matches(r#""imagePullPolicy":"Always""#).count(), 2);
}

#[test]
fn probes_ask_the_sidecar() {
    let pod = injected(&table().into_iter().find(|(what, _)| *what == "with probes").expect("there").1);
    let app = &pod["spec"]["containers"][0];
    let expected = json!({"httpGet": {"path": "/probe/tcp/8080", "port": 15110}, "failureThreshold": 30});
    assert_eq!(app["startupProbe"], expected);
    let expected = json!({"httpGet": {"path": "/probe/tcp/9000", "port": 15110}, "periodSeconds": 7});
    assert_eq!(app["livenessProbe"], expected);
    let expected = json!({"httpGet": {"path": "/probe/http/8080/healthz", "port": 15110}});
    assert_eq!(app["readinessProbe"], expected);
    assert_eq!(
        env(sidecar(&pod), "FERRULE_PROBES")["value"],
        r#"["/probe/tcp/8080","/probe/tcp/9000","/probe/http/8080/healthz"]"#
    );
}

#[test]
fn probes_of_the_users_native_sidecars_are_rewritten_in_their_new_place() {
    let original = table().into_iter().find(|(what, _)| what.contains("native sidecar")).expect("there").1;
    let pod = injected(&original);
    assert_eq!(pod["spec"]["initContainers"][3]["startupProbe"]["httpGet"]["path"], "/probe/tcp/4000");
}

#[test]
fn a_probe_that_cannot_be_resolved_is_a_warning_only() {
    let pod = pod("spec: {containers: [{name: app, livenessProbe: {tcpSocket: {port: web}}}]}");
    let (_, warnings) = injected_with_warnings(&pod);
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains(r#"container "app""#), "{warnings:?}");
}

#[test]
fn a_copied_pod_is_brought_up_to_date() {
    let pod = injected(&copied());
    assert_eq!(names(&pod), ["ferrule-init", "ferrule-proxy", "migrate"]);
    assert_eq!(sidecar(&pod)["image"], "ferrule/ferrule-proxy:1.2.3");
    assert_eq!(env(sidecar(&pod), "FERRULE_PROBES")["value"], r#"["/probe/tcp/80"]"#);
    assert_eq!(pod["metadata"]["annotations"]["ferrule.dev/injected"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn what_other_webhooks_and_defaults_added_stays() {
    let mut pod = injected(&plain());
    let sidecar = &mut pod["spec"]["initContainers"][1];
    sidecar["terminationMessagePolicy"] = json!("File");
    sidecar["env"].as_array_mut().expect("env").insert(0, json!({"name": "OTHER", "value": "x"}));
    sidecar["volumeMounts"].as_array_mut().expect("mounts").push(json!({"name": "kube-api-access-x"}));
    pod["spec"]["initContainers"][0]["env"][3]
        .as_object_mut()
        .expect("a variable")
        .retain(|key, _| key == "name" || key == "value");
    let Decision::Inject { patch, .. } = decide(&pod).expect("not refused") else { panic!("skipped") };
    assert!(patch.is_empty(), "{patch}");
}

#[test]
fn a_webhook_after_us_cannot_come_before_us() {
    let mut pod = injected(&plain());
    pod["spec"]["initContainers"]
        .as_array_mut()
        .expect("list")
        .insert(0, json!({"name": "other", "image": "x"}));
    pod["spec"]["containers"]
        .as_array_mut()
        .expect("list")
        .push(json!({"name": "late", "image": "x", "readinessProbe": {"tcpSocket": {"port": 7000}}}));
    let pod = injected(&pod);
    assert_eq!(names(&pod), ["ferrule-init", "ferrule-proxy", "other"]);
    assert_eq!(env(sidecar(&pod), "FERRULE_PROBES")["value"], r#"["/probe/tcp/7000"]"#);
}

#[test]
fn an_injected_pod_that_lost_a_part_is_repaired() {
    for lost in 0..2 {
        let mut pod = injected(&plain());
        pod["spec"]["initContainers"].as_array_mut().expect("list").remove(lost);
        assert_eq!(names(&injected(&pod)), ["ferrule-init", "ferrule-proxy"]);
    }
}

#[test]
fn pods_that_cannot_be_in_the_mesh_are_left_alone() {
    for (pod, skip, warns) in [
        (
            pod("{metadata: {labels: {ferrule.dev/inject: disabled}}, spec: {containers: [{name: app}]}}"),
            Skip::OptedOut,
            false,
        ),
        (pod("spec: {hostNetwork: true, containers: [{name: app}]}"), Skip::HostNetwork, true),
        (pod("spec: {os: {name: windows}, containers: [{name: app}]}"), Skip::Windows, true),
        (
            pod("spec: {nodeSelector: {kubernetes.io/os: windows}, containers: [{name: app}]}"),
            Skip::Windows,
            true,
        ),
        (
            pod(
                "{metadata: {annotations: {kubernetes.io/config.mirror: x}}, spec: {containers: [{name: app}]}}",
            ),
            Skip::Mirror,
            false,
        ),
    ] {
        assert_eq!(decide(&pod), Ok(Decision::Skip(skip)));
        assert_eq!(skip.warning().is_some(), warns, "{skip:?}");
    }
    for namespace in ["kube-system", "ferrule-system"] {
        let decision = inject(&plain(), &Context { namespace, pod_security: None }, &settings());
        assert_eq!(decision, Ok(Decision::Skip(Skip::SystemNamespace)), "{namespace}");
    }
}

#[test]
fn a_pod_that_opted_out_may_say_anything_else() {
    let mut pod = annotated("ferrule.dev/nonsense", "x");
    pod["metadata"]["labels"] = json!({"ferrule.dev/inject": "disabled"});
    assert_eq!(decide(&pod), Ok(Decision::Skip(Skip::OptedOut)));
}

#[test]
fn refusals_name_the_cause_and_the_cure() {
    for (pod, words) in [
        (
            annotated("ferrule.dev/exclude-inbound-ports", "http"),
            &["ferrule.dev/exclude-inbound-ports", "\"http\"", "port numbers from 1 to 65535"][..],
        ),
        (
            annotated("ferrule.dev/proxy-cpu-limit", "much"),
            &["ferrule.dev/proxy-cpu-limit", "\"much\"", "for example 100m"],
        ),
        (
            annotated("ferrule.dev/drain-seconds", "60"),
            &["ferrule.dev/drain-seconds", "\"60\"", "terminationGracePeriodSeconds of 30", "raise"],
        ),
        (
            annotated("ferrule.dev/drain-second", "1"),
            &["ferrule.dev/drain-second ", "did you mean ferrule.dev/drain-seconds?"],
        ),
        (
            pod("{metadata: {labels: {ferrule.dev/inject: 'false'}}, spec: {containers: [{name: app}]}}"),
            &["label ferrule.dev/inject", "\"false\"", "\"disabled\" keeps the sidecar out"],
        ),
        (
            pod("spec: {containers: [{name: ferrule-proxy}]}"),
            &["container \"ferrule-proxy\"", "reserved", "rename"],
        ),
        (
            pod("spec: {containers: [{name: app}], initContainers: [{name: ferrule-init}]}"),
            &["container \"ferrule-init\"", "reserved"],
        ),
        (
            pod("spec: {containers: [{name: app}], volumes: [{name: ferrule-api, emptyDir: {}}]}"),
            &["volume \"ferrule-api\"", "reserved"],
        ),
        (
            pod("spec: {containers: [{name: app, ports: [{containerPort: 15110}]}]}"),
            &["container \"app\"", "15110", "ferrule.dev/inject: disabled"],
        ),
        (
            pod("spec: {containers: [{name: app, securityContext: {runAsUser: 15100}}]}"),
            &["container \"app\"", "user 15100", "runAsUser"],
        ),
        (
            pod("spec: {securityContext: {runAsUser: 15100}, containers: [{name: app}]}"),
            &["container \"app\"", "user 15100"],
        ),
        (pod("spec: {containers: []}"), &["not a pod", "spec.containers"]),
    ] {
        let message = refused(&pod);
        for word in words {
            assert!(message.contains(word), "{word:?} is missing in: {message}");
        }
    }
}

#[test]
fn udp_on_a_reserved_port_and_an_overridden_user_do_no_harm() {
    decide(&pod("spec: {containers: [{name: app, ports: [{containerPort: 15110, protocol: UDP}]}]}"))
        .expect("accepted");
    decide(&pod("spec: {securityContext: {runAsUser: 15100}, containers: [{name: app, securityContext: {runAsUser: 1}}]}"))
        .expect("accepted");
}

#[test]
fn a_namespace_that_forbids_net_admin_is_named_with_the_cure() {
    let context = Context { namespace: NAMESPACE, pod_security: Some(Level::Restricted) };
    let message = inject(&plain(), &context, &settings()).expect_err("refused").to_string();
    for word in
        ["namespace shop", "\"restricted\"", "NET_ADMIN", "pod-security.kubernetes.io/enforce", "privileged"]
    {
        assert!(message.contains(word), "{word:?} is missing in: {message}");
    }
}

#[test]
fn an_apparmor_profile_of_the_pod_does_not_bind_our_containers() {
    let pod = injected(&pod("
spec:
  securityContext: {appArmorProfile: {type: Localhost, localhostProfile: strict}}
  containers: [{name: app}]"));
    assert_eq!(init(&pod)["securityContext"]["appArmorProfile"]["type"], "RuntimeDefault");
    assert_eq!(sidecar(&pod)["securityContext"]["appArmorProfile"]["type"], "RuntimeDefault");
    assert_eq!(sidecar(&injected(&plain()))["securityContext"].get("appArmorProfile"), None);
}

#[test]
fn draining_fits_into_a_short_grace_period() {
    let pod = injected(&pod("spec: {terminationGracePeriodSeconds: 3, containers: [{name: app}]}"));
    assert_eq!(env(sidecar(&pod), "FERRULE_DRAIN_SECONDS")["value"], "3");
}

#[test]
fn resources_of_the_whole_pod_leave_no_room_for_defaults() {
    let pod = injected(&pod("spec: {resources: {limits: {memory: 64Mi}}, containers: [{name: app}]}"));
    assert_eq!(sidecar(&pod)["resources"], json!({}));
}
