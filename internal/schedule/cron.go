// Package schedule keeps the schedules of backups. The truth is one file per
// schedule in the state directory, an operator's pause included; Temporal's
// schedules are made equal to the files by [Reconcile], so that a new or
// foreign Temporal loses none.
package schedule

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Cron is a parsed time specification of five fields.
type Cron struct {
	minute, hour, dom, month, dow field
}

// field is the set of allowed values; star means that its text began with *,
// which decides between AND and OR of the two day fields, as in cron(8).
type field struct {
	text string
	set  uint64
	star bool
}

func (f field) has(v int) bool { return f.set&(1<<uint(v)) != 0 }

type limits struct {
	name   string
	lo, hi int
}

var fields = [5]limits{
	{"minute", 0, 59}, {"hour", 0, 23}, {"day of month", 1, 31}, {"month", 1, 12}, {"day of week", 0, 6},
}

const (
	maxText  = 256
	examples = "'0-13-*-*-0' is every Sunday at 13:00, '30-2-*-*-*' every day at 02:30"
)

// Parse reads minute-hour-dayofmonth-month-dayofweek (numbers, *, */n, comma
// lists), or the same five fields separated by blanks, where ranges are
// possible too. Its errors say what to type.
func Parse(text string) (Cron, error) {
	var c Cron
	text = strings.TrimSpace(text)
	if len(text) > maxText {
		return c, fmt.Errorf("the time is %d characters long: use at most %d", len(text), maxText)
	}
	if strings.HasPrefix(text, "@") {
		return c, fmt.Errorf("%q is a shorthand that is not known here: write five fields, %s", text, examples)
	}
	dashed := !strings.ContainsAny(text, " \t")
	parts := strings.Fields(text)
	if dashed {
		parts = strings.Split(text, "-")
	}
	if len(parts) != 5 {
		return c, countError(text, len(parts), dashed)
	}
	var err error
	for i, f := range []*field{&c.minute, &c.hour, &c.dom, &c.month, &c.dow} {
		if *f, err = parseField(parts[i], fields[i]); err != nil {
			return Cron{}, err
		}
	}
	return c, c.possible()
}

func countError(text string, n int, dashed bool) error {
	switch {
	case text == "":
		return fmt.Errorf("the time is empty: write minute-hour-day-month-weekday, for example %s", examples)
	case !dashed:
		return fmt.Errorf("%q has %d fields separated by blanks: write five, for example '0 13 * * 0'", text, n)
	case n > 5:
		return fmt.Errorf("%q has %d fields: write five, minute-hour-day-month-weekday, for example %s; a range like 1-5 needs the form with blanks, in quotes: '0 13 * * 1-5'", text, n, examples)
	}
	return fmt.Errorf("%q has %d of 5 fields: write minute-hour-day-month-weekday, for example %s", text, n, examples)
}

func parseField(text string, l limits) (field, error) {
	f := field{text: text, star: strings.HasPrefix(text, "*")}
	for _, item := range strings.Split(text, ",") {
		s, err := parseItem(item, l)
		if err != nil {
			return f, fmt.Errorf("%s %q: %w", l.name, text, err)
		}
		f.set |= s
	}
	return f, nil
}

func parseItem(item string, l limits) (uint64, error) {
	body, stepText, stepped := strings.Cut(item, "/")
	lo, hi, step := l.lo, l.hi, 1
	if a, b, ranged := strings.Cut(body, "-"); body != "*" {
		var err error
		if lo, err = number(a, l); err != nil {
			return 0, err
		}
		if hi = lo; ranged {
			if hi, err = number(b, l); err != nil {
				return 0, err
			}
		}
		switch {
		case hi < lo:
			return 0, fmt.Errorf("the range %d-%d runs backwards: write two, %d-%d,%d-%d", lo, hi, lo, l.hi, l.lo, hi)
		case stepped && !ranged:
			return 0, fmt.Errorf("a step needs * or a range before the slash: write */%s or %d-%d/%s", stepText, lo, l.hi, stepText)
		}
	}
	if stepped {
		var err error
		if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > l.hi || stepText[0] == '+' {
			return 0, fmt.Errorf("step %q: use a number from 1 to %d", stepText, l.hi)
		}
	}
	var set uint64
	for v := lo; v <= hi; v += step {
		set |= 1 << uint(v)
	}
	return set, nil
}

func number(s string, l limits) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	switch {
	case err != nil && s == "":
		return 0, errors.New("a value is missing")
	case err != nil:
		return 0, fmt.Errorf("%q is not a number: use %d to %d, *, */n, or a list with commas", s, l.lo, l.hi)
	case l.hi == 6 && n == 7:
		return 0, errors.New("7 is not a day of the week here: Sunday is 0")
	case int(n) < l.lo || int(n) > l.hi:
		return 0, fmt.Errorf("%d is out of range: use %d to %d", n, l.lo, l.hi)
	}
	return int(n), nil
}

// longest is the greatest day each month can have.
var longest = [13]int{0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

// possible refuses days that no month of the set ever has, like 31 February.
func (c Cron) possible() error {
	first := bits.TrailingZeros64(c.dom.set)
	for m := 1; m <= 12; m++ {
		if c.month.has(m) && first <= longest[m] {
			return nil
		}
	}
	return fmt.Errorf("day of month %q never comes in month %q: choose a day that exists", c.dom.text, c.month.text)
}

// String is the specification as five fields separated by blanks.
func (c Cron) String() string {
	return strings.Join([]string{c.minute.text, c.hour.text, c.dom.text, c.month.text, c.dow.text}, " ")
}

// either says that both day fields are restricted, so that one is enough: cron's OR.
func (c Cron) either() bool { return !c.dom.star && !c.dow.star }

// Expressions are the cron strings for Temporal. Temporal joins the two day
// fields with AND (stated in its API, schedule/v1), so cron's OR becomes two strings.
func (c Cron) Expressions() []string {
	if !c.either() {
		return []string{c.String()}
	}
	byDay, byWeekday := c, c
	byDay.dow = field{text: "*"}
	byWeekday.dom = field{text: "*"}
	return []string{byDay.String(), byWeekday.String()}
}

func (c Cron) day(t time.Time) bool {
	if !c.month.has(int(t.Month())) {
		return false
	}
	dom, dow := c.dom.has(t.Day()), c.dow.has(int(t.Weekday()))
	if c.either() {
		return dom || dow
	}
	return dom && dow
}

// lastYear is where Temporal's calendars end.
const lastYear = 2100

// Next is the first time after t that matches in t's location; false when
// there is none. Times are matched literally, as Temporal does: one that a
// change of the clock leaves out does not come that day, one that comes twice
// matches twice.
func (c Cron) Next(t time.Time) (time.Time, bool) {
	t = t.Truncate(time.Minute).Add(time.Minute)
	// Truncate works on absolute time; zones with odd seconds in their offset (before 1972) are out of scope.
	for t.Year() <= lastYear {
		switch {
		case !c.day(t):
			next := time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, t.Location())
			if !next.After(t) {
				next = t.Add(time.Hour) // midnight does not exist on that day
			}
			t = next
		case !c.hour.has(t.Hour()):
			t = t.Add(time.Duration(60-t.Minute()) * time.Minute)
		case !c.minute.has(t.Minute()):
			t = t.Add(time.Minute)
		default:
			return t, true
		}
	}
	return time.Time{}, false
}

// NextN lists the next n times after t.
func (c Cron) NextN(t time.Time, n int) []time.Time {
	out := make([]time.Time, 0, n)
	for len(out) < n {
		next, ok := c.Next(t)
		if !ok {
			break
		}
		out = append(out, next)
		t = next
	}
	return out
}
