//! Names of people, as frequent as in the United States.
//!
//! The tables hold about 200 of the most frequent first names of either sex and last names with their share of the
//! population in hundred-thousandths, close to the name files of the U.S. Census Bureau's 1990 census
//! (`dist.male.first`, `dist.female.first`, `dist.all.last`). They cover 73 %, 58 % and 25 % of people. Drawing last
//! names from the table alone would make namesakes far too frequent, so the other people have one of 1,000 last names
//! that are put together, all equally likely.

use super::draw::Draw;

/// A whole population, in the tables' unit.
const POPULATION: usize = 100_000;

const MALE: &str = "\
    James 3318 John 3271 Robert 3143 Michael 2629 William 2451 David 2363 Richard 1703 Charles 1523 Joseph 1404 \
    Thomas 1380 Christopher 1035 Daniel 974 Paul 948 Mark 938 Donald 931 George 927 Kenneth 826 Steven 780 Edward 779 \
    Brian 736 Ronald 725 Anthony 721 Kevin 671 Jason 660 Matthew 657 Gary 650 Timothy 640 Jose 613 Larry 598 \
    Jeffrey 591 Frank 581 Scott 546 Eric 544 Stephen 540 Andrew 537 Raymond 488 Gregory 441 Joshua 435 Jerry 432 \
    Dennis 415 Walter 399 Patrick 389 Peter 381 Harold 371 Douglas 367 Henry 365 Carl 346 Arthur 335 Ryan 328 \
    Roger 322 Joe 321 Juan 316 Jack 315 Albert 314 Jonathan 313 Justin 311 Terry 311 Gerald 309 Keith 308 Samuel 306 \
    Willie 302 Ralph 282 Lawrence 282 Nicholas 275 Roy 273 Benjamin 270 Bruce 263 Brandon 260 Adam 259 Harry 251 \
    Fred 251 Wayne 249 Billy 248 Steve 246 Louis 243 Jeremy 242 Aaron 240 Randy 232 Howard 230 Eugene 230 Carlos 229 \
    Russell 224 Bobby 223 Victor 222 Martin 216 Ernest 215 Phillip 213 Todd 213 Jesse 209 Craig 206 Alan 204 \
    Shawn 200 Clarence 197 Sean 197 Philip 197 Chris 197 Johnny 195 Earl 193 Jimmy 191 Antonio 190 Danny 190 \
    Bryan 190 Tony 190 Luis 189 Mike 187 Stanley 186 Leonard 186 Nathan 185 Dale 184 Manuel 181 Rodney 180 Curtis 180 \
    Norman 177 Allen 174 Marvin 171 Vincent 168 Glenn 167 Jeffery 166 Travis 166 Jeff 165 Chad 165 Jacob 165 Lee 162 \
    Melvin 162 Alfred 162 Kyle 160 Francis 157 Bradley 156 Jesus 155 Herbert 155 Frederick 154 Ray 153 Joel 152 \
    Edwin 152 Don 145 Eddie 144 Ricky 141 Troy 138 Randall 137 Barry 134 Alexander 132 Bernard 127 Mario 125 \
    Leroy 125 Francisco 124 Marcus 123 Micheal 123 Theodore 123 Clifford 123 Miguel 122 Oscar 122 Jay 118 Jim 118 \
    Tom 117 Calvin 115 Alex 115 Jon 115 Ronnie 113 Bill 113 Lloyd 113 Tommy 112 Leon 112 Derek 112 Warren 110 \
    Darrell 108 Jerome 108 Floyd 107 Leo 106 Alvin 105 Tim 104 Wesley 104 Gordon 104 Dean 104 Greg 104 Jorge 104 \
    Dustin 103 Pedro 103 Derrick 103 Dan 101 Lewis 99 Zachary 99 Corey 99 Herman 98 Maurice 98 Vernon 98 Roberto 97 \
    Clyde 95 Glen 94 Hector 94 Shane 93 Ricardo 93 Sam 92 Rick 91 Lester 91 Brent 91 Ramon 91 Charlie 90 Tyler 90 \
    Gilbert 89 Gene 87";

const FEMALE: &str = "\
    Mary 2629 Patricia 1073 Linda 1035 Barbara 980 Elizabeth 937 Jennifer 932 Maria 828 Susan 794 Margaret 768 \
    Dorothy 727 Lisa 704 Nancy 669 Karen 667 Betty 666 Helen 663 Sandra 629 Donna 583 Carol 565 Ruth 562 Sharon 522 \
    Michelle 519 Laura 510 Sarah 508 Kimberly 504 Deborah 494 Jessica 490 Shirley 482 Cynthia 469 Angela 468 \
    Melissa 462 Brenda 455 Amy 451 Anna 440 Rebecca 430 Virginia 430 Kathleen 424 Pamela 416 Martha 412 Debra 408 \
    Amanda 404 Stephanie 400 Carolyn 385 Christine 382 Marie 379 Janet 379 Catherine 373 Frances 370 Ann 364 \
    Joyce 364 Diane 359 Alice 357 Julie 348 Heather 337 Teresa 336 Doris 335 Gloria 335 Evelyn 322 Jean 315 \
    Cheryl 315 Mildred 313 Katherine 313 Joan 306 Ashley 303 Judith 303 Rose 303 Janice 302 Kelly 299 Nicole 281 \
    Judy 276 Christina 275 Kathy 272 Theresa 271 Beverly 267 Denise 264 Tammy 259 Irene 252 Jane 250 Lori 248 \
    Rachel 242 Marilyn 241 Andrea 236 Kathryn 234 Louise 229 Sara 229 Anne 228 Jacqueline 228 Wanda 226 Bonnie 223 \
    Julia 223 Ruby 221 Lois 220 Tina 220 Phyllis 219 Norma 218 Paula 217 Diana 216 Annie 216 Lillian 211 Emily 208 \
    Robin 208 Peggy 205 Crystal 202 Gladys 201 Rita 201 Dawn 200 Connie 200 Florence 200 Tracy 194 Edna 192 \
    Tiffany 190 Carmen 190 Rosa 190 Cindy 190 Grace 189 Wendy 188 Victoria 186 Edith 185 Kim 184 Sherry 183 \
    Sylvia 180 Josephine 175 Thelma 173 Shannon 173 Sheila 172 Ethel 170 Ellen 170 Elaine 170 Marjorie 169 Carrie 168 \
    Charlotte 167 Monica 165 Esther 164 Pauline 163 Emma 161 Juanita 158 Anita 157 Rhonda 155 Hazel 155 Amber 154 \
    Eva 154 Debbie 153 April 151 Leslie 150 Clara 150 Lucille 148 Jamie 148 Joanne 148 Eleanor 147 Valerie 147 \
    Danielle 147 Megan 145 Alicia 145 Suzanne 144 Michele 143 Gail 142 Bertha 142 Darlene 141 Veronica 140 Jill 140 \
    Erin 140 Geraldine 138 Lauren 138 Cathy 138 Joann 138 Lorraine 137 Lynn 135 Sally 135 Regina 134 Erica 134 \
    Beatrice 133 Dolores 132 Bernice 131 Audrey 129 Yvonne 128 Annette 127 June 127 Samantha 126 Marion 126 Dana 125 \
    Stacy 125 Ana 124 Renee 122 Ida 121 Vivian 121 Roberta 120 Holly 120 Brittany 119 Melanie 119 Loretta 117 \
    Yolanda 116 Jeanette 116 Laurie 114 Katie 114 Kristen 114 Vanessa 113";

const LAST: &str = "\
    Smith 1006 Johnson 810 Williams 699 Jones 621 Brown 621 Davis 480 Miller 424 Wilson 339 Moore 312 Taylor 311 \
    Anderson 311 Thomas 311 Jackson 310 White 279 Harris 275 Martin 273 Thompson 269 Garcia 254 Martinez 234 \
    Robinson 233 Clark 231 Rodriguez 229 Lewis 226 Lee 220 Walker 219 Hall 200 Allen 199 Young 193 Hernandez 192 \
    King 190 Wright 189 Lopez 187 Hill 187 Scott 185 Green 183 Adams 174 Baker 171 Gonzalez 166 Nelson 162 Carter 162 \
    Mitchell 160 Perez 155 Roberts 153 Turner 152 Phillips 149 Campbell 149 Parker 146 Evans 141 Edwards 137 \
    Collins 134 Stewart 133 Sanchez 130 Morris 125 Rogers 123 Reed 122 Cook 120 Morgan 118 Bell 117 Murphy 117 \
    Bailey 115 Rivera 113 Cooper 113 Richardson 112 Cox 110 Howard 110 Ward 108 Torres 108 Peterson 107 Gray 106 \
    Ramirez 105 James 105 Watson 103 Brooks 103 Kelly 102 Sanders 100 Price 99 Bennett 99 Wood 98 Barnes 97 Ross 96 \
    Henderson 95 Coleman 95 Jenkins 95 Perry 94 Powell 93 Long 92 Patterson 92 Hughes 92 Flores 92 Washington 92 \
    Butler 91 Simmons 91 Foster 91 Gonzales 87 Bryant 87 Alexander 85 Russell 85 Griffin 84 Diaz 84 Hayes 83 Myers 83 \
    Ford 82 Hamilton 82 Graham 82 Sullivan 80 Wallace 80 Woods 80 Cole 80 West 79 Jordan 78 Owens 78 Reynolds 78 \
    Fisher 77 Ellis 77 Harrison 76 Gibson 75 McDonald 75 Cruz 75 Marshall 75 Ortiz 75 Gomez 75 Murray 74 Freeman 73 \
    Wells 72 Webb 71 Simpson 70 Stevens 70 Tucker 70 Porter 69 Hunter 69 Hicks 69 Crawford 67 Henry 66 Boyd 66 \
    Mason 66 Morales 65 Kennedy 65 Warren 65 Dixon 65 Ramos 65 Reyes 65 Burns 65 Gordon 64 Shaw 63 Holmes 63 Rice 63 \
    Robertson 62 Hunt 61 Black 61 Daniels 60 Palmer 60 Mills 59 Nichols 59 Grant 58 Knight 58 Ferguson 58 Rose 57 \
    Stone 57 Hawkins 56 Dunn 56 Perkins 56 Hudson 56 Spencer 55 Gardner 55 Stephens 55 Payne 55 Pierce 55 Berry 54 \
    Matthews 54 Arnold 54 Wagner 53 Willis 53 Ray 53 Watkins 53 Olson 53 Carroll 53 Duncan 52 Snyder 52 Hart 51 \
    Cunningham 51 Bradley 51 Lane 50 Andrews 50 Ruiz 50 Harper 50 Fox 50 Riley 49 Armstrong 49 Carpenter 49 Weaver 49 \
    Greene 49 Lawrence 49 Elliott 48 Chavez 48 Sims 48 Austin 48 Peters 48 Kelley 48 Franklin 47 Lawson 47";

/// Beginnings and ends of the other last names.
const BEGINNINGS: &str = "\
    Ald Alder Ash Barn Beck Berk Birch Black Bram Brig Brook Chad Clay Clif Colt Craw Dal Den Dray Dun East Edge Elm \
    Fair Farn Glad Grave Hal Ham Haw Hol Kirk Lang Lin Mar Nor Oak Pem Sher Thorn";
const ENDS: &str = "\
    bank berg bourne bridge brook bury by combe cott croft dale den field ford gate ham hurst ley man mere more shaw \
    stead ton wick";

/// Names with their shares, ready to draw from.
#[derive(Debug)]
pub(super) struct Names {
    male: Vec<(&'static str, usize)>,
    female: Vec<(&'static str, usize)>,
    last: Vec<(&'static str, usize)>,
    beginnings: Vec<&'static str>,
    ends: Vec<&'static str>,
}

/// Each name with the sum of the shares up to its own.
fn cumulative(table: &'static str) -> Vec<(&'static str, usize)> {
    let words: Vec<&str> = table.split_whitespace().collect();
    words
        .chunks_exact(2)
        .scan(0, |total, pair| {
            *total += pair[1].parse::<usize>().expect("a share follows each name");
            Some((pair[0], *total))
        })
        .collect()
}

/// The name whose share a draw below the total falls into; `None` above all.
fn named(table: &[(&'static str, usize)], draw: usize) -> Option<&'static str> {
    table.get(table.partition_point(|(_, upto)| *upto <= draw)).map(|(name, _)| *name)
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            male: cumulative(MALE),
            female: cumulative(FEMALE),
            last: cumulative(LAST),
            beginnings: BEGINNINGS.split_whitespace().collect(),
            ends: ENDS.split_whitespace().collect(),
        }
    }

    /// `First Last`, of either sex with the same probability.
    pub(super) fn draw(&self, draw: &mut Draw) -> String {
        let table = if draw.below(2) == 0 { &self.male } else { &self.female };
        let total = table.last().map_or(1, |(_, upto)| *upto);
        let first = named(table, draw.below(total)).expect("the draw is below the total");
        match named(&self.last, draw.below(POPULATION)) {
            Some(last) => format!("{first} {last}"),
            None => format!("{first} {}{}", draw.pick(&self.beginnings), draw.pick(&self.ends)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn the_tables_hold_different_names_in_falling_order() {
        for (table, at_least) in [(MALE, 195), (FEMALE, 190), (LAST, 195)] {
            let words: Vec<&str> = table.split_whitespace().collect();
            let names: BTreeSet<&str> = words.iter().step_by(2).copied().collect();
            assert_eq!(names.len() * 2, words.len(), "a name stands twice");
            assert!(names.len() >= at_least, "{} names", names.len());
            let shares: Vec<usize> = words.iter().skip(1).step_by(2).map(|share| share.parse().unwrap()).collect();
            assert!(shares.is_sorted_by(|a, b| a >= b));
        }
        let names = Names::new();
        assert_eq!(names.beginnings.len() * names.ends.len(), 1000);
    }

    #[test]
    fn names_are_as_frequent_as_their_shares() {
        let (names, mut draw) = (Names::new(), Draw::new(*b"nametest", [1, 2, 3]));
        let (mut counts, people) = (BTreeMap::new(), 40_000);
        for _ in 0..people {
            let name = names.draw(&mut draw);
            let (first, last) = name.split_once(' ').unwrap();
            *counts.entry(first.to_owned()).or_insert(0) += 1;
            *counts.entry(format!("-{last}")).or_insert(0) += 1;
        }
        let share = |name: &str| f64::from(counts[name]) / f64::from(people);
        assert!((share("-Smith") - 0.01006).abs() < 0.002, "{}", share("-Smith"));
        let males = names.male.last().unwrap().1 as f64;
        assert!((share("James") - 0.5 * 3318.0 / males).abs() < 0.003, "{}", share("James"));
    }
}
