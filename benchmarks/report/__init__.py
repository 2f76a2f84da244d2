"""Tables and plots of the rows of ``benchmarks/results``; no figure of a document is typed by hand."""
