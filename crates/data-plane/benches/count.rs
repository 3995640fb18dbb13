//! Takes one step of the data plane so many times; `bench/count.py` has valgrind count its instructions.

use std::env;
use std::hint::black_box;
use std::process::ExitCode;

use synego_data_plane::probe::count::{Run, STEPS};

/// Runs before those that are counted: by then what is kept for the next run has been made.
const BEFORE: usize = 100;

/// One run that is counted: the count begins and ends with this function.
#[inline(never)]
fn one_run(run: &mut Run) -> bool {
    black_box(run())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (name, times) = match arguments.as_slice() {
        [word] if word == "list" => {
            STEPS.iter().for_each(|step| println!("{}", step.name));
            return ExitCode::SUCCESS;
        }
        [name, times] => (name, times),
        _ => return fail("count list | count STEP TIMES; `scripts/count` does all of it"),
    };
    let Ok(times) = times.parse::<u32>() else { return fail(&format!("`{times}` is no number of runs")) };
    let Some(step) = STEPS.iter().find(|step| step.name == name) else {
        return fail(&format!("`{name}` is no step"));
    };
    let Some(mut run) = (step.set_up)() else { return fail(&format!("{name} cannot be set up")) };
    if (0..BEFORE).all(|_| run()) && (0..times).all(|_| one_run(&mut run)) {
        ExitCode::SUCCESS
    } else {
        fail(&format!("{name} did not do what it is counted for"))
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("count: {message}");
    ExitCode::FAILURE
}
