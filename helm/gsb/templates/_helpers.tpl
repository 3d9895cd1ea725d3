{{/* The release's name, short enough for what is appended to it. */}}
{{- define "gsb.name" -}}
{{ .Release.Name | trunc 30 | trimSuffix "-" }}
{{- end }}

{{/* Labels by which pods are found; never a version, since selectors cannot be changed. (root, component, pool) */}}
{{- define "gsb.selector" -}}
app.kubernetes.io/name: gsb
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
gsb/pool: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "gsb.labels" -}}
{{ include "gsb.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "gsb.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* What Kubernetes calls restricted, and no file system to write to. */}}
{{- define "gsb.container" -}}
image: {{ include "gsb.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  privileged: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
{{- end }}

{{- define "gsb.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
serviceAccountName: {{ include "gsb.name" . }}
securityContext:
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  runAsGroup: 65532
  runAsNonRoot: true
  runAsUser: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* To which ConfigMap a file belongs: one for each folder, and one for each system where there are many files. */}}
{{- define "gsb.group" -}}
{{- $parts := splitList "/" . -}}
{{- if eq (len $parts) 1 }}bus{{ else if eq (len $parts) 2 }}{{ first $parts }}{{ else }}{{ slice $parts 0 2 | join "-" }}{{ end -}}
{{- end }}

{{/* The files of config.files by their ConfigMap, as JSON. */}}
{{- define "gsb.groups" -}}
{{- $groups := dict -}}
{{- range $path := keys .Values.config.files | sortAlpha -}}
{{- $group := include "gsb.group" $path -}}
{{- $_ := set $groups $group (append (get $groups $group | default list) $path) -}}
{{- end -}}
{{ toJson $groups }}
{{- end }}

{{/* The core systems of config.files, as JSON. */}}
{{- define "gsb.systemFiles" -}}
{{- $found := list -}}
{{- range keys .Values.config.files -}}
{{- if regexMatch `^systems/[^/]+\.toml$` . }}{{ $found = append $found (trimPrefix "systems/" . | trimSuffix ".toml") }}{{ end -}}
{{- end -}}
{{ sortAlpha $found | toJson }}
{{- end }}

{{/* The core systems that are known here, as JSON. */}}
{{- define "gsb.systems" -}}
{{- if .Values.kafka.systems }}{{ sortAlpha .Values.kafka.systems | uniq | toJson }}{{ else }}{{ include "gsb.systemFiles" . }}{{ end -}}
{{- end }}

{{/* What stands behind a key of a table of gsb.toml, on a line of its own, as it is written; or nothing. (toml, table, key) */}}
{{- define "gsb.said" -}}
{{- $table := regexFind (printf `(?ms)^\[%s\].*?(^\[|\z)` .table) .toml -}}
{{- $line := regexFind (printf `(?m)^\s*%s\s*=\s*("[^"\n]*"|'[^'\n]*'|[^\s#]+)` .key) $table -}}
{{- regexReplaceAll (printf `^\s*%s\s*=\s*` .key) $line "" -}}
{{- end }}

{{/* A node that watches its folder takes changes up itself, and only what stands in gsb.toml may need a restart. */}}
{{- define "gsb.checksum" -}}
{{- $toml := get .Values.config.files "gsb.toml" | default "" -}}
{{- if regexMatch `(?m)^reload\s*=\s*["']watch["']` $toml }}{{ sha256sum $toml }}{{ else }}{{ .Values.config | toJson | sha256sum }}{{ end -}}
{{- end }}

{{- define "gsb.configVolume" -}}
name: config
{{- if .Values.config.claim }}
persistentVolumeClaim: {claimName: {{ .Values.config.claim | quote }}, readOnly: true}
{{- else if .Values.config.image }}
image: {reference: {{ .Values.config.image | quote }}, pullPolicy: IfNotPresent}
{{- else }}
projected:
  defaultMode: 0440
  sources:
  {{- range $group, $paths := include "gsb.groups" . | fromJson }}
    - configMap:
        name: {{ include "gsb.name" $ }}-config-{{ $group }}
        items:
        {{- range $paths }}
          - {key: {{ replace "/" "__" . }}, path: {{ . }}}
        {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Whether a node has a Secret, or empty files in its place. (secret, systems, worker) */}}
{{- define "gsb.holds" -}}
{{- if or (not .secret.systems) .all -}}yes
{{- else if .worker -}}
{{- if not .systems }}yes{{ end -}}
{{- range .systems }}{{ if has . $.secret.systems }}yes{{ end }}{{ end -}}
{{- end -}}
{{- end }}

{{/* What stands alone has no use for those of core systems; and says itself what is missing, instead of waiting for it. */}}
{{- define "gsb.secretVolumes" -}}
{{- range $name, $secret := .root.Values.secrets }}
{{- if not (and $.alone $secret.systems) }}
- name: secret-{{ $name }}
{{- if include "gsb.holds" (merge (dict "secret" $secret) $) }}
  secret: {secretName: {{ $secret.secretName | quote }}, defaultMode: 0440{{ if $.alone }}, optional: true{{ end }}}
{{- else }}
  configMap:
    name: {{ include "gsb.name" $.root }}-withheld
    items:
    {{- range $secret.keys }}
      - {key: empty, path: {{ . }}}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "gsb.mounts" -}}
- {name: config, mountPath: /etc/gsb, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if not .alone }}
- {name: data, mountPath: /var/lib/gsb{{ if not .writes }}, readOnly: true{{ end }}}
{{- end }}
{{- range $name, $secret := .root.Values.secrets }}
{{- if not (and $.alone $secret.systems) }}
- {name: secret-{{ $name }}, mountPath: {{ $secret.mountPath }}, readOnly: true}
{{- end }}
{{- end }}
{{- if not .alone }}
{{- range .root.Values.extraVolumeMounts }}
- {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "gsb.extraVolumes" -}}
{{- if not .alone }}
{{- range .root.Values.extraVolumes }}
- {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The template of a node's pod. (root, component, pool, arguments, resources, worker, systems, all, writes, data) */}}
{{- define "gsb.template" -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "gsb.labels" . | nindent 4 }}
    gsb/operations: "true"
  annotations:
    checksum/config: {{ include "gsb.checksum" .root }}
spec:
  {{- include "gsb.pod" .root | nindent 2 }}
  terminationGracePeriodSeconds: {{ add $values.pauseSeconds $values.drainSeconds 10 }}
  topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "gsb.selector" $ | nindent 10 }}
  {{- end }}
  initContainers:
    - name: check
      command: [gsb, check, /etc/gsb]
      {{- include "gsb.container" .root | nindent 6 }}
      resources: {{ toJson .resources }}
      volumeMounts:
        {{- include "gsb.mounts" . | nindent 8 }}
  containers:
    - name: gsb
      command: {{ concat (list "gsb" "serve" "/etc/gsb") .arguments | toJson }}
      {{- include "gsb.container" .root | nindent 6 }}
      ports:
        - {name: api, containerPort: 8080}
        - {name: operations, containerPort: 8081}
      # A node answers nothing until the store's tables are of its version. One that cannot start ends by itself, so
      # whoever waits this long waits only for one that is at work.
      startupProbe:
        httpGet: {path: /livez, port: operations}
        periodSeconds: 2
        failureThreshold: {{ div $values.startSeconds 2 }}
      livenessProbe:
        httpGet: {path: /livez, port: operations}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: operations}
        periodSeconds: 5
        timeoutSeconds: 4
        failureThreshold: 2
      lifecycle:
        preStop: {sleep: {seconds: {{ $values.pauseSeconds }}}}
      resources: {{ toJson .resources }}
      volumeMounts:
        {{- include "gsb.mounts" . | nindent 8 }}
  volumes:
    - {{- include "gsb.configVolume" .root | nindent 6 }}
    - name: tmp
      emptyDir: {sizeLimit: 256Mi}
    {{- with .data }}
    - {name: data, {{ . }}}
    {{- end }}
    {{- include "gsb.secretVolumes" . | nindent 4 }}
    {{- include "gsb.extraVolumes" . | nindent 4 }}
{{- end }}

{{/* The template of a pod that runs one command and ends; what each try had to say can be read after. `alone`: it needs
nothing that a release makes. (root, component, command, resources, config, data, writes, all, alone, affinity, volumes, mounts) */}}
{{- define "gsb.errand" -}}
{{- $pod := include "gsb.pod" .root | fromYaml -}}
{{- if .alone }}{{ $_ := set $pod "serviceAccountName" "default" }}{{ end -}}
metadata:
  labels:
    {{- include "gsb.labels" . | nindent 4 }}
spec:
  {{- toYaml $pod | nindent 2 }}
  restartPolicy: Never
  {{- with .affinity }}
  affinity: {{ toJson . }}
  {{- end }}
  containers:
    - name: {{ .component }}
      command: {{ toJson .command }}
      {{- include "gsb.container" .root | nindent 6 }}
      resources: {{ toJson .resources }}
      volumeMounts:
        {{- include "gsb.mounts" . | nindent 8 }}
        {{- range .mounts }}
        - { {{- . -}} }
        {{- end }}
  volumes:
    {{- if .config }}
    - {name: config, {{ .config }}}
    {{- else }}
    - {{- include "gsb.configVolume" .root | nindent 6 }}
    {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: 256Mi}
    {{- with .data }}
    - {name: data, {{ . }}}
    {{- end }}
    {{- range .volumes }}
    - { {{- . -}} }
    {{- end }}
    {{- include "gsb.secretVolumes" . | nindent 4 }}
    {{- include "gsb.extraVolumes" . | nindent 4 }}
{{- end }}

{{/* A template with podTemplate merged over it: a node's, or that which is named. */}}
{{- define "gsb.merged" -}}
{{- $made := include (.template | default "gsb.template") . | fromYaml -}}
{{- with $made.Error }}{{ fail . }}{{ end -}}
{{ mergeOverwrite $made (deepCopy .root.Values.podTemplate) | toYaml }}
{{- end }}

{{/* Whether no node shall run, as for a restore. */}}
{{- define "gsb.stopped" -}}
{{- if not (ternary .Values.single.replicas .Values.recorder.replicas (eq .Values.mode "single") | int) }}yes{{ end -}}
{{- end }}

{{/* The volume with the backups. */}}
{{- define "gsb.backupsVolume" -}}
name: backups, persistentVolumeClaim: {claimName: {{ .Values.backup.claim | default (printf "%s-backups" (include "gsb.name" .)) | quote }}}
{{- end }}

{{/* What mode single claims for its node. */}}
{{- define "gsb.dataClaim" -}}
accessModes: [ReadWriteOnce]
{{- with .Values.single.storageClass }}
storageClassName: {{ . | quote }}
{{- end }}
resources: {requests: {storage: {{ .Values.single.size }}}}
{{- end }}

{{/* The claim of the volume with the log, where there are many nodes. */}}
{{- define "gsb.logVolume" -}}
persistentVolumeClaim: {claimName: {{ .Values.log.claim | default (printf "%s-log" (include "gsb.name" .)) | quote }}}
{{- end }}

{{/* What goes in and out of pods. A rule without peers would let everybody in, so there is none of those.
(root, component, pool, in, out) */}}
{{- define "gsb.policy" -}}
podSelector:
  matchLabels:
    {{- include "gsb.selector" . | nindent 4 }}
policyTypes: [Ingress, Egress]
ingress:
{{- range .in }}
{{- if .from }}
  - {{ toJson . }}
{{- end }}
{{- end }}
egress:
{{- range .out }}
  - {{ toJson . }}
{{- end }}
{{- end }}
