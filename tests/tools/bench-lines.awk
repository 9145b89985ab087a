# bench-lines.awk - the lines of one bench program (tests/bench/report.h): shows each, with the
# figure of an older bench.json beside it, and appends one JSON object a figure to the file `lines`.
# Variables: program, lines, base ("" = none).

# {"program": "p", "name": "n", "value": 1.0, ...} -> old["p/n"] = 1.0; one object a line.
function read_base(   line, key)
{
	while ((getline line <base) > 0) {
		if (line !~ /"name": /)
			continue
		key = member(line, "\"program\": \"", "\"") "/" member(line, "\"name\": \"", "\"")
		old[key] = member(line, "\"value\": ", "[,}]")
	}
	close(base)
}

# What stands between `from` and the pattern `to`.
function member(line, from, to,   at)
{
	at = index(line, from)
	if (at == 0)
		return ""
	line = substr(line, at + length(from))
	match(line, to)
	return substr(line, 1, RSTART - 1)
}

function quoted(text)
{
	gsub(/\\/, "\\\\", text)
	gsub(/"/, "\\\"", text)
	return "\"" text "\""
}

function save(name, rest,   n, f, json, i)
{
	n = split(rest, f, " ")
	json = "{\"program\": " quoted(program) ", \"name\": " quoted(name)
	if (f[1] == "skipped:")
		json = json ", \"skipped\": " quoted(substr(rest, index(rest, "skipped:") + 9))
	else
		json = json ", \"value\": " f[1] ", \"unit\": " quoted(f[2])
	for (i = 3; i < n && f[1] != "skipped:"; i++) {
		if (f[i + 1] == "x")
			json = json ", \"ratio\": " f[i]
		if (f[i] == "(target") {
			sub(/\)/, "", f[i + 2])
			json = json ", \"bound\": " quoted(f[i + 1]) ", \"target\": " f[i + 2]
			json = json ", \"ok\": " (f[n] == "ok" ? "true" : "false")
		}
	}
	print json "}" >>lines
}

BEGIN {
	if (base != "")
		read_base()
}

# A name, two or more spaces (or one, behind a name as long as its column), a figure or "skipped:".
match($0, /  +(-?[0-9]+(\.[0-9]+)? [^ ]|skipped: )/) && RSTART > 1 {
	name = substr($0, 1, RSTART - 1)
	rest = substr($0, RSTART)
	sub(/^ +/, "", name)
	sub(/^ +/, "", rest)
	save(name, rest)
	key = program "/" name
	if (old[key] + 0 > 0)
		printf "%s  [was %s, %+.0f %%]\n", $0, old[key], (rest / old[key] - 1) * 100
	else
		print
	fflush()
	next
}

{
	print
	fflush()
}
