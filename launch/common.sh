# shellcheck shell=bash
# What the launch scripts share. Each of them goes to the checkout's folder and sources launch/common.sh there.
dry_run=""          # set by --dry-run: commands are printed, not run
word="" command=()  # set by parse_options

# Prints an error and ends the script.
fail() {
  echo "error: $*" >&2
  exit 2
}

# Prints a command as one would type it.
show() {
  local word
  printf '+'
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:,=@%+-]+$ ]]; then printf ' %s' "$word"; else printf ' %s' "${word@Q}"; fi
  done
  printf '\n'
}

# need_program NAME WHAT fails unless the program is there, or this is a dry run.
need_program() {
  [[ -n $dry_run ]] || command -v "$1" >/dev/null ||
    fail "$1 is not installed; install $2, or see the commands with --dry-run"
}

# Runs a command, or only prints it in a dry run.
execute() {
  show "$@"
  if [[ -z $dry_run ]]; then "$@"; fi
}

# parse_options KIND "--with-value …" "--flag …" ARGUMENTS sets the variable of each option that is given: to its value,
# or to yes for a flag. The one argument that is no option (a KIND, such as action) goes to `word`, what follows -- to
# `command`; an empty KIND allows neither.
parse_options() {
  local kind=$1 with_value=$2 flags=$3 name
  shift 3
  while (($#)); do
    name="${1#--}"
    name="${name//-/_}"
    if [[ " $with_value " == *" $1 "* ]]; then
      if (($# < 2)) || [[ $2 == -* ]]; then fail "option $1 needs a value"; fi
      declare -g "$name=$2"
      shift
    elif [[ " $flags " == *" $1 "* ]]; then
      declare -g "$name=yes"
    elif [[ -n $kind && $1 == -- ]]; then
      # shellcheck disable=SC2034  # the scripts read it
      command=("${@:2}")
      return
    elif [[ -n $kind && $1 != -* ]]; then
      [[ -z $word ]] || fail "one $kind at a time: got '$word' and '$1' (what is passed on goes after --)"
      word=$1
    else
      fail "unknown option '$1'; known: ${with_value:+$with_value }$flags"
    fi
    shift
  done
}
