//! Which part of a list a caller asks for: `page` and `per_page`. Beyond the last page there is nothing, so that who
//! pages comes to an end.

use serde::Serialize;

use super::envelope::{self, Answer, PageInfo, Problem};
use super::query::Query;

#[derive(Debug, Clone, Copy)]
pub(super) struct Paging {
    page: usize,
    per_page: usize,
}

impl Paging {
    /// `usual` things on a page where nothing is said.
    pub(super) fn of(query: &Query, usual: usize) -> Result<Self, Problem> {
        let page = query.value::<usize>("page")?.unwrap_or(1).max(1);
        let per_page = query.value::<usize>("per_page")?.unwrap_or(usual).clamp(1, LONGEST_PAGE);
        Ok(Self { page, per_page })
    }

    /// Whether the thing at this place of the whole list is on the page; places begin at 0.
    pub(super) fn has(&self, place: usize) -> bool {
        place / self.per_page == self.page - 1
    }

    /// The page of a whole list.
    pub(super) fn cut(self, all: Vec<impl Serialize>) -> Answer {
        let total = all.len();
        let shown: Vec<_> =
            all.into_iter().enumerate().filter(|(place, _)| self.has(*place)).map(|(_, one)| one).collect();
        self.answer(&shown, total)
    }

    /// The same of what is on the page already.
    pub(super) fn answer(self, shown: &[impl Serialize], total_count: usize) -> Answer {
        let Self { page, per_page } = self;
        let total_pages = total_count.div_ceil(per_page);
        envelope::page(shown, PageInfo { count: shown.len(), page, per_page, total_count, total_pages })
    }
}

pub(super) const LONGEST_PAGE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_a_list_are_all_of_it_once_and_beyond_the_last_there_is_nothing() {
        for per_page in 1..=6 {
            let pages = (1..=10).map(|page| Paging { page, per_page });
            let seen: Vec<usize> =
                pages.flat_map(|paging| (0..5).filter(move |place| paging.has(*place))).collect();
            assert_eq!(seen, (0..5).collect::<Vec<_>>(), "{per_page}");
        }
        let far = Paging { page: usize::MAX, per_page: 1000 };
        assert!(!(0..5).any(|place| far.has(place)));
    }
}
