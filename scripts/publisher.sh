#!/usr/bin/env bash
# Publishers of DAGs: who may write which packages, through the gateway. Each gets a folder with all that
# airflow-dag-publisher, the AWS CLI and rclone need: `. publishers/NAME/publisher.env` in a shell.
#
# Usage: scripts/publisher.sh enroll NAME PACKAGES    a new one; PACKAGES is a comma list, or '*' for all
#        scripts/publisher.sh ensure NAME PACKAGES    for scripts: keeps what is there and good
#        scripts/publisher.sh rotate NAME             a new credential into its folder; the old one: 1 h
#        scripts/publisher.sh list                    (JSON=1: one JSON document)
#        scripts/publisher.sh revoke NAME
# EXPIRES  the enrolment ends after this long, such as 90d; default: never (enroll)
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

command=${1-} name=${2-} packages=${3-}
case "$command" in
  list)
    principal publisher list ${JSON:+--json} </dev/null || exit
    exit 0
    ;;
  enroll | ensure | rotate | revoke) ;;
  *) die "publisher.sh does not know '$command'" "use enroll, ensure, rotate, list or revoke" ;;
esac
[[ "$name" =~ ^[a-z0-9][a-z0-9-]{0,62}$ ]] ||
  die "'$name' is no name for a publisher" "make publisher NAME=team-a PACKAGES=orders (a-z, 0-9 and dashes, at most 63)"
dir=$(publisher_dir "$name")
if [ "$command" = revoke ]; then
  principal publisher revoke "$name" </dev/null || exit
  rm -rf "$dir"
  exit 0
fi
if [ "$command" != rotate ]; then
  [[ "$packages" =~ ^(\*|[a-z0-9_]+(,[a-z0-9_]+)*)$ ]] ||
    die "PACKAGES='$packages' is no list of packages" "PACKAGES=orders,reporting, or PACKAGES='*' for an operator"
fi
[ "$command" != enroll ] || [ ! -e "$dir/publisher.env" ] ||
  die "$dir is there already" "make publisher-rotate NAME=$name makes a new credential; remove the folder if it is of another life"

umask 077
mkdir -p "$dir"
chmod 700 "$dir"
options=()
[ "$command" = rotate ] || options+=(--packages "$packages")
[ "$command" != enroll ] || [ -z "${EXPIRES-}" ] || options+=(--expires "$EXPIRES")
held=
[ ! -r "$dir/publisher.env" ] || held=$name.$(sed -n 's/^export AWS_SECRET_ACCESS_KEY=//p' "$dir/publisher.env")
if ! printf '%s\n' "$held" | principal publisher "$command" "$name" ${options[@]+"${options[@]}"} >"$dir/.new" 2>"$dir/.said"; then
  said=$(grep '^airbridge: ' "$dir/.said" || tail -n 1 "$dir/.said")
  rm -f "$dir/.new" "$dir/.said"
  rmdir "$dir" 2>/dev/null || true
  die "publisher $name: ${said#airbridge: }" "make publishers shows who is enrolled; make status whether the control plane runs"
fi
credential=$(cat "$dir/.new")
rm -f "$dir/.new" "$dir/.said"
edge_ca "$dir/ca.crt" || true

# The name that publishers dial. Those that this machine makes for itself take loopback, which its certificate
# holds as well; with a public host name there is that one alone.
host=$(setting GATEWAY_PUBLIC_HOST '')
if [ -z "$host" ] && [ "$command" != ensure ]; then
  host=$(setting GATEWAY_NAMES '')
  host=${host%% *}
fi
host=${host:-localhost}

cat >"$dir/.env.new" <<ENV
# Publisher $name of $host. In a shell: . publisher.env      (bash or zsh; holds a secret)
export AWS_ACCESS_KEY_ID=$name
export AWS_SECRET_ACCESS_KEY=${credential#*.}
export AWS_DEFAULT_REGION=$(setting AWS_DEFAULT_REGION us-east-1)
export AWS_ENDPOINT_URL=https://$host:$GATEWAY_PORT/s3
export DAG_BUCKET=$(setting DAG_BUCKET airbridge-dags)
export ENVIRONMENT=$(setting ENVIRONMENT dev)
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL_S3 S3_ENDPOINT_URL
export RCLONE_CONFIG_AIRBRIDGE_TYPE=s3 RCLONE_CONFIG_AIRBRIDGE_PROVIDER=Other
export RCLONE_CONFIG_AIRBRIDGE_ENV_AUTH=true RCLONE_CONFIG_AIRBRIDGE_REGION="\$AWS_DEFAULT_REGION"
export RCLONE_CONFIG_AIRBRIDGE_ENDPOINT="\$AWS_ENDPOINT_URL" RCLONE_CONFIG_AIRBRIDGE_NO_CHECK_BUCKET=true
ENV
if [ -r "$dir/ca.crt" ]; then
  cat >>"$dir/.env.new" <<'ENV'
AWS_CA_BUNDLE=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)/ca.crt
export AWS_CA_BUNDLE RCLONE_CA_CERT="$AWS_CA_BUNDLE"
ENV
fi
mv "$dir/.env.new" "$dir/publisher.env"
[ "$command" != ensure ] || exit 0
say publisher "$name may publish ${packages:-what it could before}; in a shell: . $dir/publisher.env"
