{{- define "penstock.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "penstock.fullname" -}}
{{- if contains (include "penstock.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "penstock.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "penstock.selector" -}}
app.kubernetes.io/name: {{ include "penstock.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "penstock.labels" -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Two fifths of cacheSize, in bytes: of each of the two caches that keep within a bound. The rest is for what has none. */}}
{{- define "penstock.cacheShare" -}}
{{- $size := toString .Values.cacheSize -}}
{{- if not (regexMatch "^[1-9][0-9]*[MGT]i$" $size) -}}
{{- fail (printf "cacheSize: expected a whole number of Mi, Gi or Ti, got %s" $size) -}}
{{- end -}}
{{- $unit := get (dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) (regexFind "[MGT]i$" $size) -}}
{{- div (mul (regexFind "^[0-9]+" $size | int64) ($unit | int64) 2) 5 -}}
{{- end -}}
