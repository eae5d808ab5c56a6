// Package activities adapts plugins, store, journal and maintenance to the
// engine: each activity is thin, checks the claim of its run before it
// writes, and turns failures into problems that an operator understands.
package activities
