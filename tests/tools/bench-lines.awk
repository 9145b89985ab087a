# bench-lines.awk - the lines of one bench program (tests/bench/report.h): shows each, with the
# figure of an older bench.json beside it, appends one JSON object a figure to the file `lines`, and
# the rows that have a reference or a target to the file `rows`.
# Variables: program, lines, rows, base ("" = none).

# {"program": "p", "what": "w", "ours": 1.0, ...} -> old["p/w"] = 1.0; one object a line.
function read_base(   line, key)
{
	while ((getline line <base) > 0) {
		if (line !~ /"what": /)
			continue
		key = member(line, "\"program\": \"", "\"") "/" member(line, "\"what\": \"", "\"")
		old[key] = member(line, "\"ours\": ", "[,}]")
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

function trimmed(text)
{
	sub(/^ +/, "", text)
	sub(/ +$/, "", text)
	return text
}

# "sink   51.3" -> name and value; a name alone has no value.
function reference(text,   json)
{
	if (text == "-")
		return ""
	if (match(text, / +-?[0-9]+\.[0-9]+$/) && text !~ /MB|ms/) {
		json = ", \"reference\": " quoted(trimmed(substr(text, 1, RSTART - 1)))
		return json ", \"reference_value\": " trimmed(substr(text, RSTART))
	}
	return ", \"reference\": " quoted(text)
}

function save(   n, f, i, ours, json, bound)
{
	n = split($0, f, " [|] ")
	for (i = 1; i <= n; i++)
		f[i] = trimmed(f[i])
	split(f[2], ours, " ")
	json = "{\"program\": " quoted(program) ", \"what\": " quoted(f[1])
	json = json ", \"ours\": " ours[1] ", \"unit\": " quoted(ours[2]) reference(f[3])
	if (f[4] ~ /x$/)
		json = json ", \"ratio\": " (f[4] + 0)
	if (f[5] != "-") {
		split(f[5], bound, " +")
		json = json ", \"bound\": " quoted(bound[1]) ", \"target\": " bound[2]
		json = json ", \"ok\": " (f[6] == "ok" ? "true" : "false")
	}
	print json "}" >>lines
	if (f[3] != "-" || f[5] != "-")
		print >>rows
	return old[program "/" f[1]] + 0 > 0 ? sprintf("  [was %s, %+.0f %%]", \
		old[program "/" f[1]], (ours[1] / old[program "/" f[1]] - 1) * 100) : ""
}

BEGIN {
	if (base != "")
		read_base()
}

/ [|] .* [|] / {
	was = save()
	print $0 was
	fflush()
	next
}

{
	print
	fflush()
}
