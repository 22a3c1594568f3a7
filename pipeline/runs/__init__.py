"""One execution of a job: binding -> work -> plan -> distribution -> worker -> execution."""
